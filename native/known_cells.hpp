// Cells without the genes that have no token, and without zeros that are stored: what most recipes take. Knows arrays of one
// batch. Knows neither frames nor Python.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tokens.hpp"

namespace cellmill {

// How many entries of each cell have a token of 0 or more and, unless `zeros`, a count above 0. `sizes` has one for each cell.
void count_known(const TokenCells& cells, bool zeros, std::span<std::int64_t> sizes, std::size_t threads);

// Writes these entries, those of cell i to indptr[i]..indptr[i + 1]. Throws std::invalid_argument where they are not as many.
void write_known(const TokenCells& cells, bool zeros, std::span<const std::int64_t> indptr, std::span<std::int32_t> columns,
                 std::span<std::uint32_t> counts, std::size_t threads);

}  // namespace cellmill
