// What bindings.cpp calls to add the recipes of tokens to the module, one function for each bind_*.cpp of a family.
#pragma once

#include <nanobind/nanobind.h>

namespace cellmill {

void bind_sequence(nanobind::module_& m);
void bind_state_sentence(nanobind::module_& m);
void bind_chromosome_sentences(nanobind::module_& m);
void bind_count_tokens(nanobind::module_& m);
void bind_hvg_panel(nanobind::module_& m);
void bind_profile(nanobind::module_& m);
void bind_rank(nanobind::module_& m);
void bind_known_cells(nanobind::module_& m);

// All of them.
inline void bind_tokens(nanobind::module_& m) {
    bind_sequence(m);
    bind_state_sentence(m);
    bind_chromosome_sentences(m);
    bind_count_tokens(m);
    bind_hvg_panel(m);
    bind_profile(m);
    bind_rank(m);
    bind_known_cells(m);
}

}  // namespace cellmill
