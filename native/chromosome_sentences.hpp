// Cells as sentences of genes drawn by expression, put together by chromosome: the family of UCE. The rules are stated in
// kernel/chromosome_sentences.py; the same in NumPy: kernel/reference/chromosome_sentences.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tokens.hpp"

namespace cellmill {

struct SentencePlan {
    std::span<const std::int64_t> rows;         // Of each column: what stands for the gene; -1 leaves it out.
    std::span<const std::int64_t> chromosomes;  // Of each column.
    std::span<const std::int64_t> places;       // Of each column: where on its chromosome.
    std::size_t n_draws = 0;
    std::size_t width = 0;                      // Of a row.
    std::int64_t first = 0;
    std::int64_t last = 0;                      // Behind the genes of a chromosome.
    std::int64_t padding = 0;
    std::int64_t offset = 0;                    // Of chromosome tokens.
    std::span<const double> uniforms;           // n_draws of each cell, instead of keyed ones; or none.
    std::span<const std::uint64_t> order;       // Of the chromosome of each column, instead of keyed ones; or none.
};

struct SentenceOut {
    std::int64_t* genes = nullptr;  // width of each cell.
    float* values = nullptr;        // The count behind each token.
    std::int64_t* lengths = nullptr;
    std::int64_t* drawn = nullptr;
};

void tokenise_sentences(const TokenCells& cells, const SentencePlan& plan, const SentenceOut& out, std::size_t threads);

}  // namespace cellmill
