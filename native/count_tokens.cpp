#include "count_tokens.hpp"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "encoded_cells.hpp"

namespace cellmill {
namespace {

class CountTokeniser {
public:
    CountTokeniser(const TokenCells& cells, const CellWindow& window, const CountTokenPlan& plan, const CountTokenOut& out, std::span<const std::uint64_t> mixed)
        : cells_(cells), window_(window), plan_(plan), out_(out), mixed_(mixed), table_(kTable) {
        for (std::size_t count = 0; count < kTable; ++count) table_[count] = found(static_cast<std::uint32_t>(count));
    }

    void make(std::size_t cell) {
        columns_ = window_.columns(cell);
        counts_ = window_.counts(cell);
        if (plan_.slot_of.empty())
            make_expressed(cell);
        else
            make_panel(cell);
    }

private:
    static constexpr std::size_t kTable = 1024;

    std::int64_t found(std::uint32_t count) const noexcept {
        return std::upper_bound(plan_.edges.begin(), plan_.edges.end(), count) - plan_.edges.begin();
    }
    std::int64_t token(std::uint32_t count) const noexcept { return count < kTable ? table_[count] : found(count); }

    void make_panel(std::size_t cell) {
        const std::size_t n = plan_.panel.size();
        const auto from = static_cast<std::size_t>(out_.starts[cell]);
        for (std::size_t slot = 0; slot < n; ++slot) out_.target[from + slot] = plan_.panel[slot] < 0 ? plan_.pad_token : table_[0];
        for (std::size_t i = 0; i < columns_.size(); ++i) {
            const std::int32_t slot = plan_.slot_of[static_cast<std::size_t>(columns_[i])];
            if (slot >= 0) out_.target[from + static_cast<std::size_t>(slot)] = token(counts_[i]);
        }
        const GeneNumbers keyed(cells_.keys[cell], Purpose::mask);
        for (std::size_t slot = 0; slot < n; ++slot) {
            const std::int32_t column = plan_.panel[slot];
            if (column < 0)
                hide(from + slot, false);
            else
                hide(from + slot, to_uniform(plan_.mask.empty() ? keyed.of_mixed(mixed_[static_cast<std::size_t>(column)])
                                                               : plan_.mask[from + slot]) < plan_.ratio[cell]);
        }
        out_.lengths[cell] = static_cast<std::int64_t>(n);
    }

    void make_expressed(std::size_t cell) {
        choose(cell);
        const auto from = static_cast<std::size_t>(out_.starts[cell]);
        const auto end = static_cast<std::size_t>(out_.starts[cell + 1]);
        if (from + places_.size() > end) throw std::invalid_argument("row " + std::to_string(cell) + " is too short for its genes");
        const GeneNumbers keyed(cells_.keys[cell], Purpose::mask);
        std::size_t at = from;
        for (const std::size_t place : places_) {
            const auto column = static_cast<std::size_t>(columns_[place]);
            out_.genes[at] = cells_.token_of[column];
            out_.target[at] = token(counts_[place]);
            hide(at++, to_uniform(plan_.mask.empty() ? keyed.of_mixed(mixed_[column]) : plan_.mask[cells_.begin(cell) + place]) < plan_.ratio[cell]);
        }
        out_.lengths[cell] = static_cast<std::int64_t>(at - from);
        for (; at < end; ++at) {
            out_.genes[at] = plan_.pad_gene;
            out_.target[at] = plan_.pad_token;
            hide(at, false);
        }
    }

    void hide(std::size_t at, bool hidden) const noexcept {
        out_.mask[at] = hidden;
        out_.values[at] = hidden ? plan_.mask_token : out_.target[at];
    }

    // Places of the genes that stay, in the order of the axis.
    void choose(std::size_t cell) {
        const std::size_t n = columns_.size();
        places_.clear();
        const auto room = static_cast<std::size_t>(std::max<std::int64_t>(plan_.room[cell], 0));
        if (n <= room) {
            for (std::size_t i = 0; i < n; ++i) places_.push_back(i);
            return;
        }
        const GeneNumbers keyed(cells_.keys[cell], Purpose::sample);
        numbers_.resize(n);
        for (std::size_t i = 0; i < n; ++i) {
            const std::uint64_t number = keyed.of_mixed(mixed_[static_cast<std::size_t>(columns_[i])]);
            numbers_[i] = plan_.largest ? (std::uint64_t{~counts_[i]} << 32) | (number >> 32) : number;
        }
        chosen_.resize(n);
        picker_.pick(numbers_, room, chosen_.data());
        for (std::size_t i = 0; i < n; ++i)
            if (chosen_[i]) places_.push_back(i);
    }

    const TokenCells& cells_;
    const CellWindow& window_;
    const CountTokenPlan& plan_;
    const CountTokenOut& out_;
    std::span<const std::uint64_t> mixed_;
    std::vector<std::int64_t> table_;
    std::span<const std::int32_t> columns_;  // Of the cell at hand.
    std::span<const std::uint32_t> counts_;
    std::vector<std::size_t> places_;
    std::vector<std::uint64_t> numbers_;
    std::vector<std::uint8_t> chosen_;
    Picker picker_;
};

}  // namespace

void tokenise_counts(const TokenCells& cells, const CountTokenPlan& plan, const CountTokenOut& out, std::size_t threads) {
    cells.check();
    const std::vector<std::uint64_t> mixed = mixed_tokens(cells.token_of);
    const std::size_t work = cells.entries() + cells.size() * plan.panel.size();
    run_cells(cells, work, threads, [&](const CellWindow& window) {
        return std::make_unique<CountTokeniser>(cells, window, plan, out, mixed);
    });
}

}  // namespace cellmill
