// Cells as count tokens, each masked by itself: over the genes of a panel, or over the expressed genes. The rules are stated
// in kernel/count_tokens.py; the same in NumPy: kernel/reference/count_tokens.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tokens.hpp"

namespace cellmill {

struct CountTokenPlan {
    std::span<const std::uint32_t> edges;     // Ascending; the token of a count is how many lie at it or below.
    std::int64_t mask_token = 0;
    std::int64_t pad_token = 0;
    std::int64_t pad_gene = 0;
    bool largest = false;                     // What stays of a row that is too short, else a uniform sample.
    std::span<const double> ratio;            // Of each cell: how probable it is that a token is masked.
    std::span<const std::int32_t> panel;      // Column of each slot, -1 where the data has none.
    std::span<const std::int32_t> slot_of;    // Slot of each column; -1. Empty for expressed genes.
    std::span<const std::int64_t> room;       // Most genes of each cell, for expressed genes.
    std::span<const std::uint64_t> mask;      // Numbers to use instead of keyed ones, one for each token or nonzero; or none.
};

// Row i lies in starts[i]..starts[i + 1]; `genes` is null for a panel.
struct CountTokenOut {
    std::span<const std::int64_t> starts;
    std::int64_t* genes = nullptr;
    std::int64_t* values = nullptr;
    std::int64_t* target = nullptr;
    std::uint8_t* mask = nullptr;
    std::int64_t* lengths = nullptr;
};

// Throws std::invalid_argument when a row is too short for its genes.
void tokenise_counts(const TokenCells& cells, const CountTokenPlan& plan, const CountTokenOut& out, std::size_t threads);

}  // namespace cellmill
