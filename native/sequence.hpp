// Cells as sequences of genes with a value each: binned, fitted to a length, masked or split, padded. The family of scGPT
// and Tahoe-x1. The rules are stated in kernel/sequences.py; the same in NumPy: kernel/reference/sequences.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tokens.hpp"

namespace cellmill {

enum class SequenceValues : int { raw = 0, bins64 = 1, bins32 = 2, log1p = 3 };
enum class Ties : int { keyed = 0, lowest = 1, highest = 2 };
enum class Choose : int { first = 0, uniform = 1, expression = 2, largest = 3 };

struct SequenceRules {
    SequenceValues values = SequenceValues::raw;
    int n_bins = 51;
    Ties ties = Ties::keyed;
    double target_sum = 1e4;
    Choose choose = Choose::uniform;
    bool shuffled = false;     // Genes of a cell that were chosen come in the order of their numbers, not in the axis'.
    bool split = false;        // What is masked goes to a part of its own.
    bool split_first = false;  // The parts are told apart before they are fitted, each to its own room.
    std::int64_t keep = 0;     // Genes at the beginning of each row that stay as they are: raw, never dropped, never masked.
    bool mask_heads = false;   // What stands in front of the genes may be masked as they may.
    std::int64_t skip = 0;     // Genes at the beginning of a row that are never masked.
    double spared = 0.0;       // A value that is never masked; NaN for none.
    float zero_value = 0.0F;   // Of a zero that is stored.
    float mask_value = -1.0F;
    float pad_value = 0.0F;
    std::int64_t pad_token = 0;
};

// What is decided for each cell before.
struct SequencePlan {
    std::span<const std::int64_t> room;      // Genes of the row at most, fillers included; of the seen part with split_first.
    std::span<const std::int64_t> part_room; // Genes of the hidden part at most, with split_first.
    std::span<const std::int64_t> n_fill;    // Genes that the cell lacks, added with value 0; with split_first 1 to fill both parts up.
    std::span<const std::int64_t> n_mask;    // Genes to mask; -1: each with its ratio; -2: that share of those that may be.
    std::span<const std::int64_t> maskable;  // Places that may be masked: those below.
    std::span<const double> ratio;
    std::span<const std::int64_t> head_tokens;  // Of each cell n_head, in front of its genes.
    std::span<const float> head_values;
    std::size_t n_head = 0;
    std::span<const std::uint8_t> fillers;   // Rows of n_columns: which genes may fill a cell of a source.
    std::span<const std::int64_t> source;    // The row of `fillers` of each cell.
};

// Numbers that are used instead of keyed ones; each empty or one for each nonzero.
struct SequenceNumbers {
    std::span<const double> bin;
    std::span<const std::uint64_t> sample;
    std::span<const std::uint64_t> mask;
};

// Row i lies in starts[i]..starts[i + 1]. Null pointers for what nobody wants.
struct SequenceOut {
    std::span<const std::int64_t> starts;
    std::int64_t* genes = nullptr;
    float* values = nullptr;
    float* target = nullptr;
    float* raw = nullptr;
    std::uint8_t* mask = nullptr;
    std::int64_t* lengths = nullptr;
    std::span<const std::int64_t> part_starts;
    std::int64_t* part_genes = nullptr;
    float* part_target = nullptr;
    float* part_raw = nullptr;
    std::int64_t* part_lengths = nullptr;
};

// Throws std::invalid_argument when the arrays contradict each other.
void tokenise_sequences(const TokenCells& cells, const SequenceRules& rules, const SequencePlan& plan,
                        const SequenceNumbers& numbers, const SequenceOut& out, std::size_t threads);

}  // namespace cellmill
