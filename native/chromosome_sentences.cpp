#include "chromosome_sentences.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <tuple>
#include <vector>

#include "encoded_cells.hpp"
#include "token_ranks.hpp"

namespace cellmill {
namespace {

// Orders of the columns that are one for all cells.
struct Orders {
    ColumnRanks by_token;
    ColumnRanks by_place;

    Orders(const TokenCells& cells, const SentencePlan& plan)
        : by_token(ranks_of_tokens(cells.token_of)),
          by_place(cells.token_of.size(), [&](std::uint32_t a, std::uint32_t b) {
              return std::tie(plan.chromosomes[a], plan.places[a], cells.token_of[a]) <
                     std::tie(plan.chromosomes[b], plan.places[b], cells.token_of[b]);
          }) {}
};

class SentenceMaker {
public:
    SentenceMaker(const TokenCells& cells, const CellWindow& window, const SentencePlan& plan, const SentenceOut& out, const Orders& orders)
        : cells_(cells), window_(window), plan_(plan), out_(out), orders_(orders), expressed_(orders.by_token.size()), drawn_(orders.by_place.size()) {
        for (std::size_t count = 0; count < kTable; ++count) log_[count] = static_cast<float>(std::log1p(static_cast<double>(count)));
    }

    void make(std::size_t cell) {
        find_genes(cell);
        times_.assign(genes_.size(), 0);
        const std::size_t n = weigh() ? draw(cell) : 0;
        out_.drawn[cell] = static_cast<std::int64_t>(n);
        write(cell);
    }

private:
    static constexpr std::size_t kTable = 256;

    struct Gene {
        std::uint32_t column;
        std::uint32_t count;
    };
    struct Run {  // The drawn genes of one chromosome.
        std::uint64_t number;
        std::int64_t chromosome;
        std::size_t begin;
        std::size_t end;
        bool operator<(const Run& other) const noexcept { return std::tie(number, chromosome) < std::tie(other.number, other.chromosome); }
    };

    void find_genes(std::size_t cell) {
        const auto columns = window_.columns(cell);
        const auto counts = window_.counts(cell);
        for (std::size_t i = 0; i < columns.size(); ++i) {
            const auto column = static_cast<std::size_t>(columns[i]);
            if (plan_.rows[column] >= 0 && counts[i] > 0) expressed_.add(orders_.by_token.of(column), counts[i]);
        }
        genes_.clear();
        expressed_.drain([&](std::uint32_t rank, std::uint32_t count) { genes_.push_back({orders_.by_token.column(rank), count}); });
    }

    float log_of(std::uint32_t count) const noexcept {
        return count < kTable ? log_[count] : static_cast<float>(std::log1p(static_cast<double>(count)));
    }

    // Fills upto_ with the cumulative probabilities; false for a cell without genes.
    bool weigh() {
        if (genes_.empty()) return false;
        weights_.resize(genes_.size());
        upto_.resize(genes_.size());
        double sum = 0.0;
        for (std::size_t i = 0; i < genes_.size(); ++i) {
            weights_[i] = log_of(genes_[i].count);
            sum += static_cast<double>(weights_[i]);
        }
        const auto whole = static_cast<float>(sum);
        float again = 0.0F;
        for (float& weight : weights_) {
            weight /= whole;
            again += weight;
        }
        double upto = 0.0;
        for (std::size_t i = 0; i < weights_.size(); ++i) upto_[i] = upto += static_cast<double>(weights_[i] / again);
        for (double& level : upto_) level /= upto;
        guide();
        return true;
    }

    // Where to begin looking for a uniform number: the first level above each of n equal steps.
    void guide() {
        const std::size_t n = upto_.size();
        guide_.resize(n);
        std::size_t at = 0;
        for (std::size_t step = 0; step < n; ++step) {
            while (at + 1 < n && upto_[at] <= static_cast<double>(step) / static_cast<double>(n)) ++at;
            guide_[step] = static_cast<std::uint32_t>(at);
        }
    }

    // The first gene whose level is above u.
    std::size_t at(double u) const noexcept {
        const std::size_t n = upto_.size();
        std::size_t found = guide_[std::min(static_cast<std::size_t>(u * static_cast<double>(n)), n - 1)];
        while (found > 0 && upto_[found - 1] > u) --found;
        while (found + 1 < n && upto_[found] <= u) ++found;
        return found;
    }

    // Draws genes while the sentence fits into its row; returns how many.
    std::size_t draw(std::size_t cell) {
        seen_.clear();
        const GeneNumbers keyed(cells_.keys[cell], Purpose::draw);
        std::size_t length = 1;
        for (std::size_t i = 0; i < plan_.n_draws; ++i) {
            const std::size_t gene = at(plan_.uniforms.empty() ? to_uniform(keyed(i)) : plan_.uniforms[cell * plan_.n_draws + i]);
            const std::int64_t chromosome = plan_.chromosomes[genes_[gene].column];
            const bool known = times_[gene] > 0 || std::find(seen_.begin(), seen_.end(), chromosome) != seen_.end();
            length += known ? 1 : 3;
            if (length > plan_.width) return i;
            if (!known) seen_.push_back(chromosome);
            ++times_[gene];
        }
        return plan_.n_draws;
    }

    void write(std::size_t cell) {
        std::int64_t* const genes = out_.genes + cell * plan_.width;
        float* const values = out_.values + cell * plan_.width;
        find_runs(cell);
        std::size_t at = 0;
        const auto put = [&](std::int64_t token, float value) {
            genes[at] = token;
            values[at++] = value;
        };
        put(plan_.first, 0.0F);
        for (const Run& run : runs_) {
            put(run.chromosome + plan_.offset, 0.0F);
            for (std::size_t i = run.begin; i < run.end; ++i) {
                const Gene gene = genes_[order_[i]];
                for (std::uint32_t time = 0; time < times_[order_[i]]; ++time) put(plan_.rows[gene.column], static_cast<float>(gene.count));
            }
            put(plan_.last, 0.0F);
        }
        out_.lengths[cell] = static_cast<std::int64_t>(at);
        while (at < plan_.width) put(plan_.padding, 0.0F);
    }

    // The drawn genes by place in order_, and where each chromosome's begin.
    void find_runs(std::size_t cell) {
        order_.clear();
        runs_.clear();
        for (std::size_t i = 0; i < genes_.size(); ++i)
            if (times_[i] > 0) drawn_.add(orders_.by_place.of(genes_[i].column), static_cast<std::uint32_t>(i));
        drawn_.drain([&](std::uint32_t, std::uint32_t gene) { order_.push_back(gene); });
        const GeneNumbers keyed(cells_.keys[cell], Purpose::order);
        for (std::size_t i = 0; i < order_.size(); ++i) {
            const std::size_t column = genes_[order_[i]].column;
            const std::int64_t chromosome = plan_.chromosomes[column];
            if (runs_.empty() || runs_.back().chromosome != chromosome) {
                const std::uint64_t number = plan_.order.empty() ? keyed(static_cast<std::uint64_t>(chromosome))
                                                                 : plan_.order[cell * plan_.rows.size() + column];
                runs_.push_back({number, chromosome, i, i});
            }
            runs_.back().end = i + 1;
        }
        std::sort(runs_.begin(), runs_.end());
    }

    const TokenCells& cells_;
    const CellWindow& window_;
    const SentencePlan& plan_;
    const SentenceOut& out_;
    const Orders& orders_;
    RankSet expressed_;
    RankSet drawn_;
    std::array<float, kTable> log_{};
    std::vector<Gene> genes_;  // By token.
    std::vector<float> weights_;
    std::vector<double> upto_;
    std::vector<std::uint32_t> guide_;
    std::vector<std::uint32_t> times_;
    std::vector<std::int64_t> seen_;
    std::vector<std::uint32_t> order_;
    std::vector<Run> runs_;
};

}  // namespace

void tokenise_sentences(const TokenCells& cells, const SentencePlan& plan, const SentenceOut& out, std::size_t threads) {
    cells.check();
    const Orders orders(cells, plan);
    const std::size_t work = cells.entries() + cells.size() * plan.n_draws;
    run_cells(cells, work, threads, [&](const CellWindow& window) {
        return std::make_unique<SentenceMaker>(cells, window, plan, out, orders);
    });
}

}  // namespace cellmill
