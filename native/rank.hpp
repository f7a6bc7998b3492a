// Cells as sequences of genes by value, the largest first. The family of Geneformer, Nicheformer and Cell2Sentence.
// The rules are stated in kernel/ranks.py; the same in NumPy: kernel/reference/ranks.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "key_order.hpp"
#include "tokens.hpp"

namespace cellmill {

// How the value of a gene comes from its count x, the counts n of its cell and the divisor d of its column.
enum class RankValues : int {
    ratio = 0,       // x / d
    divided = 1,     // x / n * 1e4 / d
    reciprocal = 2,  // x * (1 / n) * 1e4 * (1 / d)
    scaled = 3,      // x * (1e4 / n) / d
};

struct RankRules {
    RankValues values = RankValues::ratio;
    bool single = false;     // All steps before the divisor in float, not double.
    bool keyed_ties = false; // Equal values by a keyed number, not by token.
    std::int64_t token_offset = 0;
    std::int64_t pad_token = 0;
};

// What is decided for each cell before.
struct RankPlan {
    std::span<const std::int64_t> room;    // Genes of the row at most.
    std::span<const double> divisors;      // Of each column.
    std::span<const double> totals;        // Of each cell; empty where no value needs them.
    std::span<const double> values;        // Of each nonzero, instead of its count; or empty.
    std::span<const std::uint64_t> ties;   // Of each nonzero: equal values by these, the smallest first; or empty.
    std::span<const std::int64_t> head;    // Of each cell n_head, in front of its genes.
    std::size_t n_head = 0;
    std::span<const std::int64_t> tail;    // Behind the genes of every cell.
    std::span<const KeyedColumn> keyed{};  // Of each column, for ratios of counts, ties by token; or empty.
};

// Row i lies in starts[i]..starts[i + 1]. Null pointers for what nobody wants.
struct RankOut {
    std::span<const std::int64_t> starts;
    std::int64_t* genes = nullptr;
    float* values = nullptr;
    double* ranked = nullptr;     // The values before they were rounded to float.
    double* per_10k = nullptr;    // Counts per 10,000 of the cell.
    std::int64_t* lengths = nullptr;
};

// Fills the rows of all cells. Throws std::invalid_argument where a row is too short for what goes into it.
void rank_genes(const TokenCells& cells, const RankRules& rules, const RankPlan& plan, const RankOut& out, std::size_t threads);

}  // namespace cellmill
