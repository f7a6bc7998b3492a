// Cells as normalised profiles: genes with a value each in a stated order, fitted to a length, with tokens behind them, padded;
// or one row of a panel. The family of scFoundation, AIDO.Cell, TranscriptFormer and CellFM. The rules are stated in
// kernel/profiles.py; the same in NumPy: kernel/reference/profiles.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "tokens.hpp"

namespace cellmill {

enum class ProfileValues : int { raw = 0, log1p = 1, scaled = 2, given = 3 };
enum class ProfileOrder : int { axis = 0, token = 1, count = 2, keyed = 3 };
enum class ProfileChoose : int { first = 0, uniform = 1, log_count = 2 };

struct ProfileRules {
    ProfileValues values = ProfileValues::raw;
    double scale = 1e4;
    bool of_kept = false;  // Divide by the sum of the genes in the row, not by the total of the cell.
    float clip = std::numeric_limits<float>::infinity();
    ProfileOrder order = ProfileOrder::axis;
    ProfileChoose choose = ProfileChoose::first;
    bool zeros = false;    // Genes that the cell lacks fill the row.
    double mask = 0.0;     // Share of the genes that carry loss, and of those the share whose value is hidden.
    double hidden = 1.0;
    bool all_if_none = false;  // Where the share is no whole gene, all of them carry loss.
    std::int64_t pad_token = 0;
    float pad_value = 0.0F;
};

struct ProfilePlan {
    std::span<const std::int64_t> room;  // Genes of the row at most, those that the cell lacks included.
    std::span<const double> totals;      // What counts are divided by.
    std::span<const double> given;       // Of each nonzero its value, with ProfileValues::given.
    std::span<const std::int64_t> tail_tokens;  // Of each cell n_tail, behind its genes; those that are shown.
    std::span<const float> tail_values;
    std::span<const std::uint8_t> tail_shown;
    std::size_t n_tail = 0;
};

// Numbers that are used instead of keyed ones; each empty or one for each nonzero.
struct ProfileNumbers {
    std::span<const std::uint64_t> sample;
    std::span<const std::uint64_t> order;
    std::span<const std::uint64_t> mask;
};

// Row i lies in starts[i]..starts[i + 1]. Null pointers for what nobody wants.
struct ProfileOut {
    std::span<const std::int64_t> starts;
    std::int64_t* genes = nullptr;
    float* values = nullptr;
    float* target = nullptr;
    std::uint8_t* mask = nullptr;
    std::uint8_t* hidden = nullptr;
    std::int64_t* lengths = nullptr;
};

// Throws std::invalid_argument for a row that is shorter than what goes into it.
void tokenise_profiles(const TokenCells& cells, const ProfileRules& rules, const ProfilePlan& plan, const ProfileNumbers& numbers,
                       const ProfileOut& out, std::size_t threads);

// Fills rows of n_genes + n_tail: log1p(count / total * scale) at the place that is the token of a gene, then the tail.
// Throws std::invalid_argument for a token that is no place.
struct PanelRows {
    std::span<const double> totals;
    std::span<const float> tail;
    std::size_t n_genes = 0;
    std::size_t n_tail = 0;
    double scale = 1e4;
    float clip = std::numeric_limits<float>::infinity();
    float* out = nullptr;
};
void tokenise_panel(const TokenCells& cells, const PanelRows& rows, std::size_t threads);

}  // namespace cellmill
