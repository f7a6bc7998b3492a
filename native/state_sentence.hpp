// Cells as their genes by expression, with a share each, task genes and a mask: the family of STATE SE. The rules are stated
// in kernel/state_sentences.py; the same in NumPy: kernel/reference/state_sentences.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tokens.hpp"

namespace cellmill {

struct StatePlan {
    std::span<const std::int64_t> ids;             // Of each column, -1 to n_ids - 1.
    std::span<const std::uint8_t> kept;            // Of each column: whether it takes part.
    std::span<const std::uint8_t> logged;          // Of each cell: whether its counts are put through log1p.
    std::span<const double> fraction;              // Of each cell: of its counts that are drawn; 1 for all, none drawn.
    std::span<const std::int64_t> shared;          // n_shared ids of each cell.
    std::span<const std::int32_t> shared_columns;  // Their columns, -1 where the data has none.
    std::size_t n_ids = 0;
    std::size_t width = 0;
    std::size_t n_expressed = 0;
    std::size_t n_unexpressed = 0;
    std::size_t n_shared = 0;
    double mask_ratio = 0.0;
    std::int64_t first = 0;
    std::int64_t padding = 0;
    std::int64_t first_column = -1;                // What stands in slot 0 in the original's way; -1 for `first`.
    bool faithful = false;
    bool binary = false;
    std::span<const std::uint64_t> order;          // A number for each column of each cell, instead of keyed ones; or none.
    std::span<const std::uint64_t> mask;           // A number for each slot of each cell; or none.
};

struct StateOut {
    std::int64_t* genes = nullptr;  // width of each cell.
    float* values = nullptr;
    std::uint8_t* mask = nullptr;
    std::int64_t* lengths = nullptr;
    std::int64_t* task_genes = nullptr;  // n_expressed + n_unexpressed + n_shared of each cell.
    float* task_values = nullptr;
    float* totals = nullptr;
    std::uint8_t* faults = nullptr;  // Cells that the original fails on.
};

void tokenise_state(const TokenCells& cells, const StatePlan& plan, const StateOut& out, std::size_t threads);

}  // namespace cellmill
