// Cells of a batch that are decoded where they are used, some at a time: their counts never leave the nearest caches.
// Knows frames and what a batch of tokens is. Knows neither recipes nor Python.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "gather.hpp"
#include "tokens.hpp"

namespace cellmill {

// The frames behind a TokenCells: one use at a time.
class EncodedCells {
public:
    // `head` is null for a store without head genes.
    EncodedCells(Frames frames, std::uint32_t n_genes, const Model* head);

    // The first row whose bytes are no frame, or none so far.
    RowFault fault() const noexcept { return first_.found(); }

    std::size_t size() const noexcept { return frames_.size(); }
    std::uint32_t n_genes() const noexcept { return n_genes_; }

    // Nonzeros before each cell; complete where no front is at fault.
    std::span<const std::int64_t> indptr() const noexcept { return indptr_; }

    // The sum of the counts of each cell that was decoded.
    std::span<const std::uint64_t> totals() const noexcept { return totals_; }

    // All of them at once, as gather_sparse.
    std::pair<RowFault, Csr> gather(std::size_t threads);

private:
    friend class CellWindow;

    Frames frames_;
    std::uint32_t n_genes_;
    const Model* head_;
    std::vector<std::int64_t> indptr_;
    std::vector<std::uint64_t> totals_;
    FirstFault first_;
};

// Gives one worker the genes and counts of some cells, whether they lie there or must be decoded.
class CellWindow {
public:
    explicit CellWindow(const TokenCells& cells);

    // Makes cells begin..end-1 readable. False where a frame is at fault, which `fault` says then: nobody will see the rest.
    bool open(std::size_t begin, std::size_t end);

    std::span<const std::int32_t> columns(std::size_t cell) const noexcept { return columns_.subspan(at(cell), cells_.nnz(cell)); }
    std::span<const std::uint32_t> counts(std::size_t cell) const noexcept { return counts_.subspan(at(cell), cells_.nnz(cell)); }

private:
    std::size_t at(std::size_t cell) const noexcept { return cells_.begin(cell) - first_; }

    const TokenCells& cells_;
    std::unique_ptr<Decoder> decoder_;
    std::size_t first_ = 0;  // The entry that is the first of the spans.
    std::span<const std::int32_t> columns_;
    std::span<const std::uint32_t> counts_;
    std::vector<std::int32_t> own_columns_;
    std::vector<std::uint32_t> own_counts_;
};

// Calls make(cell) of makers for all cells, each of a worker, which it gets from make_maker(window); `work` is in nonzeros.
template <class MakeMaker>
void run_cells(const TokenCells& cells, std::uint64_t work, std::size_t threads, const MakeMaker& make_maker) {
    run_pieces(workers_for(work, cells.size(), threads, kLeastTokenised), cells.size(), kTokenPiece, [&] {
        auto window = std::make_unique<CellWindow>(cells);
        auto maker = make_maker(*window);
        return [window = std::move(window), maker = std::move(maker)](std::size_t begin, std::size_t end) {
            while (begin < end) {
                const std::size_t upto = std::min(end, begin + kTokenPiece);
                if (!window->open(begin, upto)) return;
                for (; begin < upto; ++begin) maker->make(begin);
            }
        };
    });
}

}  // namespace cellmill
