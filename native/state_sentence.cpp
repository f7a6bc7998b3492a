#include "state_sentence.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <vector>

#include "encoded_cells.hpp"
#include "token_ranks.hpp"

namespace cellmill {
namespace {

// The columns that take part, in the order of their tokens: a gene is its place among them.
struct KeptGenes {
    std::vector<std::uint32_t> column;
    std::vector<std::int32_t> place_of;  // Of each column; -1.
    std::vector<std::uint64_t> mixed;

    KeptGenes(const TokenCells& cells, const StatePlan& plan) : place_of(cells.token_of.size(), -1) {
        const ColumnRanks by_token = ranks_of_tokens(cells.token_of);
        for (std::size_t rank = 0; rank < by_token.size(); ++rank) {
            const std::uint32_t one = by_token.column(rank);
            if (!plan.kept[one]) continue;
            place_of[one] = static_cast<std::int32_t>(column.size());
            column.push_back(one);
            mixed.push_back(mix64(static_cast<std::uint64_t>(cells.token_of[one])));
        }
    }

    std::size_t size() const noexcept { return column.size(); }
};

class StateMaker {
public:
    StateMaker(const TokenCells& cells, const CellWindow& window, const StatePlan& plan, const StateOut& out, const KeptGenes& kept)
        : cells_(cells), window_(window), plan_(plan), out_(out), kept_(kept), expressed_(kept.size()), count_of_(kept.size()), marked_(plan.n_ids + 1) {
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
        for (const Gene& gene : genes_) count_of_[gene.place] = 0;
    }

private:
    static constexpr std::size_t kTable = 256;

    struct Gene {
        std::uint32_t place;
        std::uint32_t count;
    };
    struct Chosen {
        std::uint32_t gene;
        std::uint64_t number;
    };

    void find_genes() {
        const auto columns = window_.columns(cell_);
        const auto counts = window_.counts(cell_);
        for (std::size_t i = 0; i < columns.size(); ++i) {
            const std::int32_t place = kept_.place_of[static_cast<std::size_t>(columns[i])];
            if (place >= 0 && counts[i] > 0) expressed_.add(static_cast<std::uint32_t>(place), counts[i]);
        }
        genes_.clear();
        expressed_.drain([&](std::uint32_t place, std::uint32_t count) {
            genes_.push_back({place, count});
            count_of_[place] = count;
        });
    }

    float value(std::uint32_t count) const noexcept {
        if (!plan_.logged[cell_]) return static_cast<float>(count);
        return count < kTable ? log_[count] : static_cast<float>(std::log1p(static_cast<double>(count)));
    }

    // Genes that are and are not expressed; in the original's way those with a value below 1 are not, nor is a count of 1.
    void find_pools() {
        high_.clear();
        for (const Gene& gene : genes_) high_.push_back(gene.place);
        find_low(plan_.faithful && value(1) < 1.0F ? 1 : 0);
    }

    // Genes with counts up to one of them, by token.
    void find_low(std::uint32_t most) {
        low_.resize(kept_.size());
        std::size_t n = 0;
        for (std::size_t place = 0; place < kept_.size(); ++place) {
            low_[n] = static_cast<std::uint32_t>(place);
            n += count_of_[place] <= most;
        }
        low_.resize(n);
        low_upto_ = most;
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
        for (const Chosen& one : chosen_) tasks_.push_back(one.gene);
    }

    // Leaves in chosen_ the k genes of a pool with the smallest numbers, in the order of the pool. Numbers are uniform, so
    // that few lie below a bound that hardly ever is too low.
    void choose(const std::vector<std::uint32_t>& pool, std::size_t k, Purpose purpose) {
        const GeneNumbers keyed(key_, purpose);
        const double share = (static_cast<double>(k) + 6.0 * std::sqrt(static_cast<double>(k)) + 6.0) / static_cast<double>(pool.size());
        const bool given = purpose == Purpose::order && !plan_.order.empty();
        std::uint64_t bound = given || share >= 1.0 ? ~std::uint64_t{0} : static_cast<std::uint64_t>(share * 0x1p64);
        for (;; bound = ~std::uint64_t{0}) {
            below_.clear();
            numbers_.clear();
            for (const std::uint32_t gene : pool) {
                const std::uint64_t number = given ? order_of(gene, keyed) : keyed.of_mixed(kept_.mixed[gene]);
                if (number > bound) continue;
                below_.push_back(gene);
                numbers_.push_back(number);
            }
            if (below_.size() >= std::min(k, pool.size())) break;
        }
        picked_.resize(below_.size());
        picker_.pick(numbers_, k, picked_.data());
        chosen_.clear();
        for (std::size_t i = 0; i < below_.size(); ++i)
            if (picked_[i]) chosen_.push_back({below_[i], numbers_[i]});
    }

    std::uint64_t order_of(std::uint32_t gene, const GeneNumbers& keyed) const noexcept {
        return plan_.order.empty() ? keyed.of_mixed(kept_.mixed[gene]) : plan_.order[cell_ * kept_.place_of.size() + kept_.column[gene]];
    }

    std::int64_t id_of(std::uint32_t gene) const noexcept { return plan_.ids[kept_.column[gene]]; }

    std::uint32_t count_in(std::int32_t column) const noexcept {
        const std::int32_t place = column < 0 ? -1 : kept_.place_of[static_cast<std::size_t>(column)];
        return place < 0 ? 0 : count_of_[static_cast<std::size_t>(place)];
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
        for (const std::uint32_t gene : tasks_) put(id_of(gene), value(count_of_[gene]));
        for (std::size_t i = cell_ * plan_.n_shared; i < (cell_ + 1) * plan_.n_shared; ++i)
            put(plan_.shared[i], value(count_in(plan_.shared_columns[i])));
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

    // The expressed genes, the largest count first, equal ones by number.
    void rank() {
        const GeneNumbers keyed(key_, Purpose::order);
        ranked_.clear();
        sum_ = 0.0;
        for (const Gene& gene : genes_) {
            count_of_[gene.place] = gene.count;
            if (gene.count == 0) continue;
            ranked_.emplace_back(gene.count, static_cast<std::uint32_t>(order_of(gene.place, keyed) >> 32), gene.place);
            sum_ += static_cast<double>(value(gene.count));
        }
        sorter_.sort(ranked_);
        ranked_.resize(std::min(ranked_.size(), plan_.width - 1));
    }

    // Fills the row up with genes that are not expressed: each once where the data has genes for the whole row.
    void fill() {
        const std::size_t missing = plan_.width - 1 - ranked_.size();
        if (missing == 0) return;
        if (low_upto_ > 0 || plan_.fraction[cell_] < 1.0) find_low(0);
        if (kept_.size() < plan_.width - 1) {
            if (low_.empty()) out_.faults[cell_] = 1;
            for (std::size_t i = 0; i < missing && !low_.empty(); ++i) ranked_.emplace_back(0, 0, low_[place(Purpose::fill, i, low_.size())]);
            return;
        }
        choose(low_, missing, Purpose::order);
        fillers_.clear();
        for (const Chosen& one : chosen_) fillers_.emplace_back(0, static_cast<std::uint32_t>(one.number >> 32), one.gene);
        sorter_.sort(fillers_);
        ranked_.insert(ranked_.end(), fillers_.begin(), fillers_.end());
    }

    // A share of the cell, in percent; of a cell without counts the same for every gene.
    float share(std::uint32_t count) const noexcept {
        if (sum_ == 0.0) return 1.0F / static_cast<float>(kept_.size()) * 100.0F;
        return value(count) / static_cast<float>(sum_) * 100.0F;
    }

    void write() {
        std::int64_t* const genes = out_.genes + cell_ * plan_.width;
        float* const values = out_.values + cell_ * plan_.width;
        const std::int64_t column = plan_.first_column;
        genes[0] = column < 0 ? plan_.first : plan_.ids[static_cast<std::size_t>(column)];
        values[0] = column < 0 ? 0.0F : share(count_in(static_cast<std::int32_t>(column)));
        for (std::size_t slot = 1; slot < plan_.width; ++slot) {
            const bool real = slot <= ranked_.size();
            genes[slot] = real ? id_of(ranked_[slot - 1].place) : plan_.padding;
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
        picked_.resize(slots.size());
        picker_.pick(numbers_, k, picked_.data());
        for (std::size_t i = 0; i < slots.size(); ++i) mask[slots[i]] = picked_[i];
    }

    const TokenCells& cells_;
    const CellWindow& window_;
    const StatePlan& plan_;
    const StateOut& out_;
    const KeptGenes& kept_;
    std::size_t cell_ = 0;
    std::uint64_t key_ = 0;
    double sum_ = 0.0;
    RankSet expressed_;
    std::vector<std::uint32_t> count_of_;  // Of each gene; zero between cells.
    std::vector<std::uint8_t> marked_;     // Of each id + 1; zero between cells.
    std::array<float, kTable> log_{};
    std::vector<Gene> genes_;  // By token.
    std::vector<std::uint32_t> high_;
    std::vector<std::uint32_t> low_;
    std::uint32_t low_upto_ = 0;
    std::vector<std::uint32_t> tasks_;
    std::vector<double> upto_;
    std::vector<CountedGene> ranked_;
    std::vector<CountedGene> fillers_;
    std::vector<std::uint32_t> first_;
    std::vector<std::uint32_t> then_;
    std::vector<std::uint64_t> numbers_;
    std::vector<std::uint32_t> below_;
    std::vector<std::uint8_t> picked_;
    std::vector<Chosen> chosen_;
    CountSorter sorter_;
    Picker picker_;
};

}  // namespace

void tokenise_state(const TokenCells& cells, const StatePlan& plan, const StateOut& out, std::size_t threads) {
    cells.check();
    const KeptGenes kept(cells, plan);
    if (kept.size() == 0) throw std::invalid_argument("kept leaves no gene");
    const std::size_t work = cells.entries() + cells.size() * cells.token_of.size();
    run_cells(cells, work, threads, [&](const CellWindow& window) {
        return std::make_unique<StateMaker>(cells, window, plan, out, kept);
    });
}

}  // namespace cellmill
