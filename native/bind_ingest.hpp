// Adds the reading of source blocks to the native module.
#pragma once

#include <nanobind/nanobind.h>

namespace cellmill {

void bind_ingest(nanobind::module_& m);

}  // namespace cellmill
