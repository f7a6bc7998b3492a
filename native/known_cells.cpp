#include "known_cells.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

namespace cellmill {
namespace {

// Work that pays for starting a thread, in nonzeros: one takes about 1 ns.
constexpr std::uint64_t kLeastKnown = 200'000;

std::vector<std::uint8_t> have_tokens(const TokenCells& cells) {
    std::vector<std::uint8_t> known(cells.token_of.size());
    for (std::size_t column = 0; column < known.size(); ++column) known[column] = cells.token_of[column] >= 0;
    return known;
}

}  // namespace

void count_known(const TokenCells& cells, bool zeros, std::span<std::int64_t> sizes, std::size_t threads) {
    cells.check();
    const std::vector<std::uint8_t> known = have_tokens(cells);
    run_pieces(workers_for(cells.entries(), cells.size(), threads, kLeastKnown), cells.size(), kTokenPiece, [&] {
        return [&](std::size_t begin, std::size_t end) {
            for (std::size_t cell = begin; cell < end; ++cell) {
                const std::int32_t* const columns = cells.columns.data() + cells.begin(cell);
                const std::uint32_t* const counts = cells.counts.data() + cells.begin(cell);
                std::uint32_t size = 0;
                for (std::size_t i = 0; i < cells.nnz(cell); ++i) size += known[static_cast<std::size_t>(columns[i])] & (zeros | (counts[i] > 0));
                sizes[cell] = size;
            }
        };
    });
}

void write_known(const TokenCells& cells, bool zeros, std::span<const std::int64_t> indptr, std::span<std::int32_t> columns,
                 std::span<std::uint32_t> counts, std::size_t threads) {
    cells.check();
    const std::vector<std::uint8_t> known = have_tokens(cells);
    run_pieces(workers_for(cells.entries(), cells.size(), threads, kLeastKnown), cells.size(), kTokenPiece, [&] {
        // To arrays of its own first: without a branch the place behind the last entry is written too, another worker's perhaps.
        return [&, own_columns = std::vector<std::int32_t>(), own_counts = std::vector<std::uint32_t>()](std::size_t begin, std::size_t end) mutable {
            for (std::size_t cell = begin; cell < end; ++cell) {
                const std::size_t n = cells.nnz(cell);
                if (own_columns.size() < n + 1) {
                    own_columns.resize(n + 1);
                    own_counts.resize(n + 1);
                }
                std::size_t size = 0;
                for (std::size_t i = cells.begin(cell); i < cells.begin(cell) + n; ++i) {
                    own_columns[size] = cells.columns[i];
                    own_counts[size] = cells.counts[i];
                    size += known[static_cast<std::size_t>(cells.columns[i])] & (zeros | (cells.counts[i] > 0));
                }
                if (indptr[cell + 1] - indptr[cell] != static_cast<std::int64_t>(size))
                    throw std::invalid_argument("cell " + std::to_string(cell) + " has another number of known genes");
                std::copy_n(own_columns.data(), size, columns.data() + indptr[cell]);
                std::copy_n(own_counts.data(), size, counts.data() + indptr[cell]);
            }
        };
    });
}

}  // namespace cellmill
