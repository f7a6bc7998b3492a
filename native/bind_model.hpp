// What bindings.cpp calls to add the model of head genes to the module.
#pragma once

#include <nanobind/nanobind.h>

namespace cellmill {

void bind_model(nanobind::module_& m);

}  // namespace cellmill
