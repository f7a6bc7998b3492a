// Cells as one value for each gene of a panel, and the largest of their other genes as pairs. The rules are stated in
// kernel/hvg_panels.py; the same in NumPy: kernel/reference/hvg_panels.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tokens.hpp"

namespace cellmill {

enum class PanelValues : int { raw = 0, scaled = 1, log1p = 2 };

struct PanelRules {
    PanelValues values = PanelValues::log1p;
    std::size_t n_slots = 0;
    std::size_t fill_to = 0;
    std::int64_t pad_token = 0;
};

// Where the values go. Row i of the other genes lies in other_starts[i]..other_starts[i + 1].
struct PanelOut {
    float* values = nullptr;
    std::span<const std::int64_t> other_starts;
    std::int64_t* other_genes = nullptr;
    float* other_values = nullptr;
};

// Other genes that each cell gets: as many as it lacks of `fill_to`, at most as many as it expresses.
void count_other_genes(const TokenCells& cells, std::span<const std::int32_t> slot_of, std::size_t fill_to,
                       std::int64_t* counted, std::size_t threads);

// Throws std::invalid_argument when a row of other genes is too short.
void tokenise_panels(const TokenCells& cells, std::span<const std::int32_t> slot_of, std::span<const double> scales,
                     const PanelRules& rules, const PanelOut& out, std::size_t threads);

}  // namespace cellmill
