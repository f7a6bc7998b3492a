#include "hvg_panel.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "parallel.hpp"
#include "token_ranks.hpp"

namespace cellmill {
namespace {

class PanelMaker {
public:
    PanelMaker(const TokenCells& cells, std::span<const std::int32_t> slot_of, std::span<const double> scales,
               const PanelRules& rules, const PanelOut& out, const ColumnRanks& ranks)
        : cells_(cells), slot_of_(slot_of), scales_(scales), rules_(rules), out_(out), ranks_(ranks) {}

    void make(std::size_t cell) {
        std::fill(known_.begin(), known_.end(), std::uint8_t{0});
        float* const row = out_.values + cell * rules_.n_slots;
        std::fill_n(row, rules_.n_slots, 0.0F);
        others_.clear();
        std::size_t filled = 0;
        const std::size_t begin = cells_.begin(cell);
        for (std::size_t i = begin; i < begin + cells_.nnz(cell); ++i) {
            const auto column = static_cast<std::size_t>(cells_.columns[i]);
            const std::uint32_t count = cells_.counts[i];
            if (count == 0) continue;
            if (slot_of_[column] >= 0) {
                row[slot_of_[column]] = value(count, scales_[cell]);
                ++filled;
            } else {
                others_.emplace_back(count, ranks_.of(column), static_cast<std::uint32_t>(column));
            }
        }
        write_others(cell, std::min(rules_.fill_to > filled ? rules_.fill_to - filled : 0, others_.size()));
    }

private:
    // Most counts of a cell are small, and each is worked out once.
    float value(std::uint32_t count, double scale) noexcept {
        if (count >= known_.size()) return worked_out(count, scale);
        if (!known_[count]) {
            value_[count] = worked_out(count, scale);
            known_[count] = 1;
        }
        return value_[count];
    }

    float worked_out(std::uint32_t count, double scale) const noexcept {
        if (rules_.values == PanelValues::raw) return static_cast<float>(count);
        const double scaled = static_cast<double>(count) * scale;
        return static_cast<float>(rules_.values == PanelValues::log1p ? std::log1p(scaled) : scaled);
    }

    void write_others(std::size_t cell, std::size_t k) {
        if (out_.other_starts.empty()) return;
        auto at = static_cast<std::size_t>(out_.other_starts[cell]);
        const auto end = static_cast<std::size_t>(out_.other_starts[cell + 1]);
        if (at + k > end) throw std::invalid_argument("row " + std::to_string(cell) + " of other genes is too short");
        if (k > 0) sorter_.sort(others_);
        for (std::size_t i = 0; i < k; ++i, ++at) {
            out_.other_genes[at] = cells_.token_of[others_[i].place];
            out_.other_values[at] = value(others_[i].count(), scales_[cell]);
        }
        for (; at < end; ++at) {
            out_.other_genes[at] = rules_.pad_token;
            out_.other_values[at] = 0.0F;
        }
    }

    const TokenCells& cells_;
    std::span<const std::int32_t> slot_of_;
    std::span<const double> scales_;
    const PanelRules& rules_;
    const PanelOut& out_;
    const ColumnRanks& ranks_;
    std::vector<CountedGene> others_;
    CountSorter sorter_;
    std::array<std::uint8_t, 256> known_{};
    std::array<float, 256> value_{};
};

}  // namespace

void count_other_genes(const TokenCells& cells, std::span<const std::int32_t> slot_of, std::size_t fill_to,
                       std::int64_t* counted, std::size_t threads) {
    run_pieces(workers_for(cells.columns.size(), cells.size(), threads, kLeastTokenised), cells.size(), kTokenPiece, [&] {
        return [&](std::size_t first, std::size_t last) {
            for (std::size_t cell = first; cell < last; ++cell) {
                std::size_t filled = 0;
                std::size_t others = 0;
                for (std::size_t i = cells.begin(cell); i < cells.begin(cell) + cells.nnz(cell); ++i) {
                    const bool inside = slot_of[static_cast<std::size_t>(cells.columns[i])] >= 0;
                    filled += inside && cells.counts[i] > 0;
                    others += !inside && cells.counts[i] > 0;
                }
                counted[cell] = static_cast<std::int64_t>(std::min(fill_to > filled ? fill_to - filled : 0, others));
            }
        };
    });
}

void tokenise_panels(const TokenCells& cells, std::span<const std::int32_t> slot_of, std::span<const double> scales,
                     const PanelRules& rules, const PanelOut& out, std::size_t threads) {
    cells.check();
    const ColumnRanks ranks = ranks_of_tokens(cells.token_of);
    run_pieces(workers_for(cells.columns.size(), cells.size(), threads, kLeastTokenised), cells.size(), kTokenPiece, [&] {
        return [maker = std::make_unique<PanelMaker>(cells, slot_of, scales, rules, out, ranks)](std::size_t first, std::size_t last) {
            for (std::size_t cell = first; cell < last; ++cell) maker->make(cell);
        };
    });
}

}  // namespace cellmill
