#include "state_sentence.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <vector>

#include "parallel.hpp"
#include "token_ranks.hpp"

namespace cellmill {
namespace {

struct Columns {
    ColumnRanks by_token;
    std::vector<std::uint64_t> mixed;
    std::size_t n_kept = 0;

    Columns(const TokenCells& cells, const StatePlan& plan) : by_token(ranks_of_tokens(cells.token_of)), mixed(mixed_tokens(cells.token_of)) {
        for (const std::uint8_t kept : plan.kept) n_kept += kept != 0;
    }
};

class StateMaker {
public:
    StateMaker(const TokenCells& cells, const StatePlan& plan, const StateOut& out, const Columns& columns)
        : cells_(cells), plan_(plan), out_(out), columns_(columns), expressed_(columns.by_token.size()),
          count_of_(columns.by_token.size()), marked_(plan.n_ids + 1) {
        for (std::size_t count = 0; count < kTable; ++count) log_[count] = static_cast<float>(std::log1p(static_cast<double>(count)));
    }

    void make(std::size_t cell) {
        cell_ = cell;
        key_ = cells_.keys[cell];
        out_.faults[cell] = 0;
        find_genes();
        find_pools();
        choose_tasks();
        downsample();
        rank();
        fill();
        write();
        mark();
        for (const Gene& gene : genes_) count_of_[gene.column] = 0;
    }

private:
    static constexpr std::size_t kTable = 256;

    struct Gene {
        std::uint32_t column;
        std::uint32_t count;
    };

    void find_genes() {
        for (std::size_t i = cells_.begin(cell_); i < cells_.begin(cell_) + cells_.nnz(cell_); ++i) {
            const auto column = static_cast<std::size_t>(cells_.columns[i]);
            if (plan_.kept[column] && cells_.counts[i] > 0) expressed_.add(columns_.by_token.of(column), cells_.counts[i]);
        }
        genes_.clear();
        expressed_.drain([&](std::uint32_t rank, std::uint32_t count) {
            genes_.push_back({columns_.by_token.column(rank), count});
            count_of_[genes_.back().column] = count;
        });
    }

    float value(std::uint32_t count) const noexcept {
        if (!plan_.logged[cell_]) return static_cast<float>(count);
        return count < kTable ? log_[count] : static_cast<float>(std::log1p(static_cast<double>(count)));
    }

    // Columns that are and are not expressed, by token; in the original's way counts of 1 are both.
    void find_pools() {
        high_.clear();
        low_.clear();
        for (const Gene& gene : genes_) high_.push_back(gene.column);
        for (std::size_t rank = 0; rank < columns_.by_token.size(); ++rank) {
            const std::uint32_t column = columns_.by_token.column(rank);
            if (plan_.kept[column] && (plan_.faithful ? value(count_of_[column]) < 1.0F : count_of_[column] == 0)) low_.push_back(column);
        }
    }

    std::size_t n_tasks() const noexcept { return plan_.n_expressed + plan_.n_unexpressed + plan_.n_shared; }

    void choose_tasks() {
        tasks_.clear();
        if (plan_.faithful && high_.empty() && plan_.n_expressed > 0) {
            const std::uint32_t one = low_[place(Purpose::draw, 0, low_.size())];
            tasks_.assign(plan_.n_expressed, one);
        } else {
            sample(high_.empty() ? low_ : high_, plan_.n_expressed, Purpose::draw);
        }
        if (low_.empty() && plan_.n_unexpressed > 0) out_.faults[cell_] = 2;
        sample(low_.empty() ? high_ : low_, plan_.n_unexpressed, Purpose::part);
        write_tasks();
    }

    std::size_t place(Purpose purpose, std::size_t i, std::size_t n) const noexcept {
        return static_cast<std::size_t>(to_uniform(GeneNumbers(key_, purpose)(i)) * static_cast<double>(n));
    }

    // Adds k of a pool to the tasks: without replacement where it has more, by token.
    void sample(const std::vector<std::uint32_t>& pool, std::size_t k, Purpose purpose) {
        if (pool.size() <= k) {
            for (std::size_t i = 0; i < k; ++i) tasks_.push_back(pool[place(purpose, i, pool.size())]);
            return;
        }
        choose(pool, k, purpose);
        for (std::size_t i = 0; i < pool.size(); ++i)
            if (chosen_[i]) tasks_.push_back(pool[i]);
    }

    // Says in chosen_ which k of a pool have the smallest numbers.
    void choose(const std::vector<std::uint32_t>& pool, std::size_t k, Purpose purpose) {
        const GeneNumbers keyed(key_, purpose);
        numbers_.resize(pool.size());
        for (std::size_t i = 0; i < pool.size(); ++i)
            numbers_[i] = purpose == Purpose::order ? order_of(pool[i], keyed) : keyed.of_mixed(columns_.mixed[pool[i]]);
        chosen_.resize(pool.size());
        picker_.pick(numbers_, k, chosen_.data());
    }

    std::uint64_t order_of(std::uint32_t column, const GeneNumbers& keyed) const noexcept {
        return plan_.order.empty() ? keyed.of_mixed(columns_.mixed[column]) : plan_.order[cell_ * count_of_.size() + column];
    }

    void write_tasks() {
        std::int64_t* const ids = out_.task_genes + cell_ * n_tasks();
        float* const values = out_.task_values + cell_ * n_tasks();
        double total = 0.0;
        std::size_t at = 0;
        const auto put = [&](std::int64_t id, float one) {
            total += static_cast<double>(one);
            ids[at] = id;
            values[at++] = plan_.binary ? static_cast<float>(one > 0.0F) : one;
        };
        for (const std::uint32_t column : tasks_) put(plan_.ids[column], value(count_of_[column]));
        for (std::size_t i = cell_ * plan_.n_shared; i < (cell_ + 1) * plan_.n_shared; ++i) {
            const std::int32_t column = plan_.shared_columns[i];
            put(plan_.shared[i], column < 0 ? 0.0F : value(count_of_[static_cast<std::size_t>(column)]));
        }
        out_.totals[cell_] = static_cast<float>(total);
    }

    // Leaves in genes_ the counts that were drawn, where not all of them are taken.
    void downsample() {
        if (!(plan_.fraction[cell_] < 1.0) || genes_.empty()) return;
        upto_.clear();
        double total = 0.0;
        for (const Gene& gene : genes_) upto_.push_back(total += gene.count);
        const auto draws = static_cast<std::size_t>(total * plan_.fraction[cell_]);
        for (Gene& gene : genes_) gene.count = 0;
        const GeneNumbers keyed(key_, Purpose::sample);
        for (std::size_t i = 0; i < draws; ++i) {
            const auto at = std::upper_bound(upto_.begin(), upto_.end(), std::floor(to_uniform(keyed(i)) * total));
            ++genes_[std::min(static_cast<std::size_t>(at - upto_.begin()), genes_.size() - 1)].count;
        }
    }

    // The expressed genes, the largest count first, equal ones by number; the others stay in low_.
    void rank() {
        const GeneNumbers keyed(key_, Purpose::order);
        ranked_.clear();
        low_.clear();
        sum_ = 0.0;
        for (const Gene& gene : genes_) {
            count_of_[gene.column] = gene.count;
            if (gene.count == 0) continue;
            ranked_.emplace_back(gene.count, static_cast<std::uint32_t>(order_of(gene.column, keyed) >> 32), gene.column);
            sum_ += static_cast<double>(value(gene.count));
        }
        sorter_.sort(ranked_);
        ranked_.resize(std::min(ranked_.size(), plan_.width - 1));
    }

    // Fills the row up with genes that are not expressed: each once where the data has genes for the whole row.
    void fill() {
        const std::size_t missing = plan_.width - 1 - ranked_.size();
        if (missing == 0) return;
        for (std::size_t rank = 0; rank < columns_.by_token.size(); ++rank) {
            const std::uint32_t column = columns_.by_token.column(rank);
            if (plan_.kept[column] && count_of_[column] == 0) low_.push_back(column);
        }
        if (columns_.n_kept < plan_.width - 1) {
            if (low_.empty()) out_.faults[cell_] = 1;
            for (std::size_t i = 0; i < missing && !low_.empty(); ++i) ranked_.emplace_back(0, 0, low_[place(Purpose::fill, i, low_.size())]);
            return;
        }
        choose(low_, missing, Purpose::order);
        fillers_.clear();
        for (std::size_t i = 0; i < low_.size(); ++i)
            if (chosen_[i]) fillers_.emplace_back(0, static_cast<std::uint32_t>(numbers_[i] >> 32), low_[i]);
        sorter_.sort(fillers_);
        ranked_.insert(ranked_.end(), fillers_.begin(), fillers_.end());
    }

    // A share of the cell, in percent; of a cell without counts the same for every gene.
    float share(std::uint32_t count) const noexcept {
        if (sum_ == 0.0) return 1.0F / static_cast<float>(columns_.n_kept) * 100.0F;
        return value(count) / static_cast<float>(sum_) * 100.0F;
    }

    void write() {
        std::int64_t* const genes = out_.genes + cell_ * plan_.width;
        float* const values = out_.values + cell_ * plan_.width;
        const auto column = static_cast<std::size_t>(plan_.first_column);
        genes[0] = plan_.first_column < 0 ? plan_.first : plan_.ids[column];
        values[0] = plan_.first_column < 0 ? 0.0F : share(count_of_[column]);
        for (std::size_t slot = 1; slot < plan_.width; ++slot) {
            const bool real = slot <= ranked_.size();
            genes[slot] = real ? plan_.ids[ranked_[slot - 1].place] : plan_.padding;
            values[slot] = real ? share(ranked_[slot - 1].count()) : 0.0F;
        }
        out_.lengths[cell_] = static_cast<std::int64_t>(1 + ranked_.size());
    }

    // Masks slots of task genes, as many as the ratio says: some of them where they are more, others too where they are fewer.
    void mark() {
        const std::int64_t* const genes = out_.genes + cell_ * plan_.width;
        std::uint8_t* const mask = out_.mask + cell_ * plan_.width;
        const std::int64_t* const tasks = out_.task_genes + cell_ * n_tasks();
        std::fill_n(mask, plan_.width, std::uint8_t{0});
        for (std::size_t i = 0; i < n_tasks(); ++i) marked_[static_cast<std::size_t>(tasks[i] + 1)] = 1;
        const std::size_t length = 1 + ranked_.size();
        first_.clear();
        then_.clear();
        // The original counts its first slot with the genes to predict, though it is never masked.
        const std::size_t counted = plan_.faithful && marked_[static_cast<std::size_t>(genes[0] + 1)] ? 1 : 0;
        for (std::size_t slot = 1; slot < length; ++slot)
            (marked_[static_cast<std::size_t>(genes[slot] + 1)] ? first_ : then_).push_back(static_cast<std::uint32_t>(slot));
        for (std::size_t i = 0; i < n_tasks(); ++i) marked_[static_cast<std::size_t>(tasks[i] + 1)] = 0;
        const auto wanted = static_cast<std::size_t>(plan_.mask_ratio * static_cast<double>(length));
        const std::size_t known = first_.size() + counted;
        mark_some(first_, known > wanted ? wanted : first_.size(), mask);
        mark_some(then_, wanted - std::min(wanted, known), mask);
    }

    void mark_some(const std::vector<std::uint32_t>& slots, std::size_t k, std::uint8_t* mask) {
        const GeneNumbers keyed(key_, Purpose::mask);
        numbers_.resize(slots.size());
        for (std::size_t i = 0; i < slots.size(); ++i)
            numbers_[i] = plan_.mask.empty() ? keyed(slots[i]) : plan_.mask[cell_ * plan_.width + slots[i]];
        chosen_.resize(slots.size());
        picker_.pick(numbers_, k, chosen_.data());
        for (std::size_t i = 0; i < slots.size(); ++i) mask[slots[i]] = chosen_[i];
    }

    const TokenCells& cells_;
    const StatePlan& plan_;
    const StateOut& out_;
    const Columns& columns_;
    std::size_t cell_ = 0;
    std::uint64_t key_ = 0;
    double sum_ = 0.0;
    RankSet expressed_;
    std::vector<std::uint32_t> count_of_;  // Of each column; zero between cells.
    std::vector<std::uint8_t> marked_;     // Of each id + 1; zero between cells.
    std::array<float, kTable> log_{};
    std::vector<Gene> genes_;  // By token.
    std::vector<std::uint32_t> high_;
    std::vector<std::uint32_t> low_;
    std::vector<std::uint32_t> tasks_;
    std::vector<double> upto_;
    std::vector<CountedGene> ranked_;
    std::vector<CountedGene> fillers_;
    std::vector<std::uint32_t> first_;
    std::vector<std::uint32_t> then_;
    std::vector<std::uint64_t> numbers_;
    std::vector<std::uint8_t> chosen_;
    CountSorter sorter_;
    Picker picker_;
};

}  // namespace

void tokenise_state(const TokenCells& cells, const StatePlan& plan, const StateOut& out, std::size_t threads) {
    cells.check();
    const Columns columns(cells, plan);
    if (columns.n_kept == 0) throw std::invalid_argument("kept leaves no gene");
    const std::size_t work = cells.columns.size() + cells.size() * cells.token_of.size();
    run_pieces(workers_for(work, cells.size(), threads, kLeastTokenised), cells.size(), kTokenPiece, [&] {
        return [maker = std::make_unique<StateMaker>(cells, plan, out, columns)](std::size_t first, std::size_t last) {
            for (std::size_t cell = first; cell < last; ++cell) maker->make(cell);
        };
    });
}

}  // namespace cellmill
