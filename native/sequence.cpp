#include "sequence.hpp"

#include <limits>
#include <memory>
#include <string>

#include "order.hpp"

namespace cellmill {
namespace {

using U64s = std::vector<std::uint64_t>;

// One gene of a row on its way there.
struct Gene {
    std::uint32_t place;  // Of its nonzero in the cell; kFiller for a gene that the cell lacks.
    std::int32_t column;
};
constexpr std::uint32_t kFiller = std::numeric_limits<std::uint32_t>::max();

// A positive double as a number of the same order.
std::uint64_t as_order(double x) noexcept { return std::bit_cast<std::uint64_t>(x); }

class RowMaker {
public:
    RowMaker(const TokenCells& cells, const SequenceRules& rules, const SequencePlan& plan, const SequenceNumbers& numbers,
             const SequenceOut& out, std::span<const std::uint64_t> mixed)
        : cells_(cells), rules_(rules), plan_(plan), given_(numbers), out_(out), mixed_(mixed),
          bins_(rules.values == SequenceValues::bins32 ? Arithmetic::q32 : Arithmetic::q64,
                static_cast<std::size_t>(rules.n_bins - 1)) {}

    void make(std::size_t cell) {
        start(cell);
        if (rules_.split_first) return make_parts(cell);
        choose(kept_, room(plan_.room[cell]));
        fill(cell, kept_, plan_.n_fill.empty() ? 0 : room(plan_.n_fill[cell]));
        mark(cell, kept_);
        if (!rules_.split) return write(cell, kept_, hidden_);
        part_.clear();
        std::size_t seen = 0;
        for (std::size_t i = 0; i < kept_.size(); ++i) {
            if (hidden_[i])
                part_.push_back(kept_[i]);
            else
                kept_[seen++] = kept_[i];
        }
        kept_.resize(seen);
        hidden_.assign(seen, 0);
        write(cell, kept_, hidden_);
        write_part(cell);
    }

private:
    static std::size_t room(std::int64_t wanted) { return static_cast<std::size_t>(std::max<std::int64_t>(wanted, 0)); }

    void start(std::size_t cell) {
        begin_ = cells_.begin(cell);
        nnz_ = cells_.nnz(cell);
        counts_ = cells_.counts.subspan(begin_, nnz_);
        columns_ = cells_.columns.subspan(begin_, nnz_);
        key_ = cells_.keys[cell];
        fixed_ = std::min(nnz_, static_cast<std::size_t>(rules_.keep));
        walked_ = 0;
        kept_.resize(nnz_ - fixed_);
        for (std::size_t i = fixed_; i < nnz_; ++i) kept_[i - fixed_] = {static_cast<std::uint32_t>(i), columns_[i]};
        if (rules_.values == SequenceValues::bins64 || rules_.values == SequenceValues::bins32) bins_.measure(counts_.subspan(fixed_));
        if (rules_.values == SequenceValues::log1p) {
            double sum = 0.0;
            for (const std::uint32_t count : counts_.subspan(fixed_)) sum += count;
            divisor_ = static_cast<float>(sum) + 1e-9F;
        }
    }

    std::uint64_t number(const Gene& gene, std::span<const std::uint64_t> given, const GeneNumbers& keyed) const noexcept {
        if (!given.empty() && gene.place != kFiller) return given[begin_ + gene.place];
        return keyed.of_mixed(mixed_[static_cast<std::size_t>(gene.column)]);
    }

    // Keeps as many genes as there is room for; they stay in the order of the axis unless rows are shuffled.
    void choose(std::vector<Gene>& genes, std::size_t most) {
        if (genes.size() <= most) return;
        if (rules_.choose == Choose::first) {
            genes.resize(most);
            return;
        }
        const GeneNumbers keyed(key_, Purpose::sample);
        numbers_.resize(genes.size());
        for (std::size_t i = 0; i < genes.size(); ++i) numbers_[i] = rank(genes[i], number(genes[i], given_.sample, keyed));
        chosen_.resize(genes.size());
        picker_.pick(numbers_, most, chosen_.data());
        std::size_t at = 0;
        for (std::size_t i = 0; i < genes.size(); ++i) {
            if (!chosen_[i]) continue;
            numbers_[at] = numbers_[i];
            genes[at++] = genes[i];
        }
        genes.resize(most);
        if (rules_.shuffled) shuffle(genes);
    }

    // Genes of the smallest ranks are kept. By expression: the first arrivals of processes whose rates are the counts, which
    // is drawing one after the other with probability count / sum of what is left.
    std::uint64_t rank(const Gene& gene, std::uint64_t number) const noexcept {
        const std::uint32_t count = counts_[gene.place];
        switch (rules_.choose) {
            case Choose::expression:
                return count == 0 ? std::numeric_limits<std::uint64_t>::max()
                                  : as_order(-std::log((static_cast<double>(number >> 11) + 0.5) * 0x1p-53) / count);
            case Choose::largest:
                return (std::uint64_t{~count} << 32) | (number >> 32);
            default:
                return number;
        }
    }

    void shuffle(std::vector<Gene>& genes) {
        order_.resize(genes.size());
        for (std::size_t i = 0; i < genes.size(); ++i) order_[i] = {numbers_[i], genes[i]};
        std::stable_sort(order_.begin(), order_.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
        for (std::size_t i = 0; i < genes.size(); ++i) genes[i] = order_[i].second;
    }

    // Adds genes that the cell lacks, in the order of a keyed bijection of the columns.
    void fill(std::size_t cell, std::vector<Gene>& genes, std::size_t wanted) {
        if (wanted == 0) return;
        const std::size_t n_columns = cells_.token_of.size();
        const std::uint8_t* const allowed = plan_.fillers.data() + static_cast<std::size_t>(plan_.source[cell]) * n_columns;
        if (walked_ == 0) {
            lacks_.assign(n_columns, 1);
            for (const std::int32_t column : columns_) lacks_[static_cast<std::size_t>(column)] = 0;
        }
        const KeyedBijection order(n_columns, stream_key(key_, static_cast<std::uint64_t>(Purpose::fill)));
        std::size_t done = 0;
        while (walked_ < n_columns && done < wanted) {
            const std::size_t column = order(walked_++);
            if (!lacks_[column] || !allowed[column]) continue;
            genes.push_back({kFiller, static_cast<std::int32_t>(column)});
            ++done;
        }
    }

    // Says in `hidden_` which genes of a row are masked.
    void mark(std::size_t cell, const std::vector<Gene>& genes) {
        hidden_.assign(genes.size(), 0);
        head_hidden_.assign(plan_.n_head, 0);
        if (plan_.n_mask.empty()) return;
        const GeneNumbers keyed(key_, Purpose::mask);
        const std::size_t end = std::min(genes.size(), room(plan_.maskable[cell]));
        numbers_.clear();
        places_.clear();
        for (std::size_t i = 0; rules_.mask_heads && i < plan_.n_head; ++i) {
            if (static_cast<double>(plan_.head_values[cell * plan_.n_head + i]) == rules_.spared) continue;
            numbers_.push_back(keyed(static_cast<std::uint64_t>(plan_.head_tokens[cell * plan_.n_head + i])));
            places_.push_back(static_cast<std::uint32_t>(i));
        }
        const std::size_t n_heads = places_.size();
        const auto at = [&](std::size_t i) -> std::uint8_t& { return i < n_heads ? head_hidden_[places_[i]] : hidden_[places_[i]]; };
        for (std::size_t i = static_cast<std::size_t>(rules_.skip); i < end; ++i) {
            if (!std::isnan(rules_.spared) && static_cast<double>(value(genes[i])) == rules_.spared) continue;
            numbers_.push_back(number(genes[i], given_.mask, keyed));
            places_.push_back(static_cast<std::uint32_t>(i));
        }
        if (plan_.n_mask[cell] == -1) {
            for (std::size_t i = 0; i < places_.size(); ++i) at(i) = to_uniform(numbers_[i]) < plan_.ratio[cell];
            return;
        }
        const std::size_t n_mask = plan_.n_mask[cell] < 0 ? static_cast<std::size_t>(static_cast<double>(numbers_.size()) * plan_.ratio[cell])
                                                          : room(plan_.n_mask[cell]);
        chosen_.resize(numbers_.size());
        picker_.pick(numbers_, std::min(numbers_.size(), n_mask), chosen_.data());
        for (std::size_t i = 0; i < places_.size(); ++i) at(i) = chosen_[i];
    }

    void make_parts(std::size_t cell) {
        mark(cell, kept_);
        part_.clear();
        std::size_t seen = 0;
        for (std::size_t i = 0; i < kept_.size(); ++i) {
            if (hidden_[i])
                part_.push_back(kept_[i]);
            else
                kept_[seen++] = kept_[i];
        }
        kept_.resize(seen);
        choose(kept_, room(plan_.room[cell]));
        choose(part_, room(plan_.part_room[cell]));
        if (!plan_.n_fill.empty() && plan_.n_fill[cell] > 0) {
            fill(cell, kept_, room(plan_.room[cell]) - kept_.size());
            fill(cell, part_, room(plan_.part_room[cell]) - part_.size());
        }
        hidden_.assign(kept_.size(), 0);
        write(cell, kept_, hidden_);
        write_part(cell);
    }

    float value(const Gene& gene) const noexcept {
        if (gene.place == kFiller) return 0.0F;
        const std::uint32_t count = counts_[gene.place];
        if (count == 0) return rules_.zero_value;
        if (rules_.values == SequenceValues::raw) return static_cast<float>(count);
        if (rules_.values == SequenceValues::log1p)
            return static_cast<float>(std::log1p(static_cast<double>(static_cast<float>(count) / divisor_ * static_cast<float>(rules_.target_sum))));
        const Between between = bins_.of(count);
        if (rules_.values == SequenceValues::bins32)  // Bins from 1: the smallest count has no edge below it.
            return static_cast<float>(rules_.ties == Ties::highest ? between.upto : between.below + 1);
        return bin64(gene, between);
    }

    float bin64(const Gene& gene, Between between) const noexcept {
        if (between.below == between.upto) return static_cast<float>(between.upto);
        if (rules_.ties == Ties::lowest) return static_cast<float>(between.below + 1);
        if (rules_.ties == Ties::highest) return static_cast<float>(between.upto);
        const double u = given_.bin.empty()
                             ? to_uniform(GeneNumbers(key_, Purpose::bin).of_mixed(mixed_[static_cast<std::size_t>(gene.column)]))
                             : given_.bin[begin_ + gene.place];
        // Where u is next to 1 the sum is rounded, to the bin below all that are meant.
        const double bin = std::ceil(u * (between.below - between.upto) + between.upto);
        return static_cast<float>(std::max(bin, between.below + 1.0));
    }

    void write(std::size_t cell, const std::vector<Gene>& genes, const std::vector<std::uint8_t>& hidden) const {
        const std::size_t from = static_cast<std::size_t>(out_.starts[cell]);
        const std::size_t end = static_cast<std::size_t>(out_.starts[cell + 1]);
        std::size_t at = from;
        for (std::size_t i = 0; i < plan_.n_head; ++i, ++at) {
            const float head = plan_.head_values[cell * plan_.n_head + i];
            const std::uint8_t covered = rules_.mask_heads ? head_hidden_[i] : std::uint8_t{0};
            put(at, plan_.head_tokens[cell * plan_.n_head + i], covered ? rules_.mask_value : head, head, head, covered);
        }
        if (at + fixed_ + genes.size() > end) throw std::invalid_argument("row " + std::to_string(cell) + " is too short for its genes");
        for (std::size_t i = 0; i < fixed_; ++i, ++at) {
            const float raw = static_cast<float>(counts_[i]);
            put(at, cells_.token_of[static_cast<std::size_t>(columns_[i])], raw, raw, raw, 0);
        }
        for (std::size_t i = 0; i < genes.size(); ++i, ++at) {
            const float own = value(genes[i]);
            const float raw = genes[i].place == kFiller ? 0.0F : static_cast<float>(counts_[genes[i].place]);
            put(at, cells_.token_of[static_cast<std::size_t>(genes[i].column)], hidden[i] ? rules_.mask_value : own, own, raw, hidden[i]);
        }
        out_.lengths[cell] = static_cast<std::int64_t>(at - from);
        for (; at < end; ++at) put(at, rules_.pad_token, rules_.pad_value, rules_.pad_value, rules_.pad_value, 0);
    }

    void put(std::size_t at, std::int64_t token, float value, float target, float raw, std::uint8_t hidden) const noexcept {
        out_.genes[at] = token;
        out_.values[at] = value;
        if (out_.target != nullptr) out_.target[at] = target;
        if (out_.raw != nullptr) out_.raw[at] = raw;
        if (out_.mask != nullptr) out_.mask[at] = hidden;
    }

    void write_part(std::size_t cell) const {
        const std::size_t from = static_cast<std::size_t>(out_.part_starts[cell]);
        const std::size_t end = static_cast<std::size_t>(out_.part_starts[cell + 1]);
        if (from + part_.size() > end) throw std::invalid_argument("part " + std::to_string(cell) + " is too short for its genes");
        for (std::size_t at = from; at < end; ++at) {
            const bool real = at - from < part_.size();
            const Gene gene = real ? part_[at - from] : Gene{kFiller, 0};
            out_.part_genes[at] = real ? cells_.token_of[static_cast<std::size_t>(gene.column)] : rules_.pad_token;
            out_.part_target[at] = real ? value(gene) : rules_.pad_value;
            if (out_.part_raw != nullptr)
                out_.part_raw[at] = !real ? rules_.pad_value : gene.place == kFiller ? 0.0F : static_cast<float>(counts_[gene.place]);
        }
        out_.part_lengths[cell] = static_cast<std::int64_t>(part_.size());
    }

    const TokenCells& cells_;
    const SequenceRules& rules_;
    const SequencePlan& plan_;
    const SequenceNumbers& given_;
    const SequenceOut& out_;
    std::span<const std::uint64_t> mixed_;
    CountBins bins_;
    Picker picker_;
    std::size_t begin_ = 0;
    std::size_t nnz_ = 0;
    std::size_t fixed_ = 0;   // Genes at the beginning that stay as they are.
    std::size_t walked_ = 0;  // Places of the order of fillers that were looked at.
    std::uint64_t key_ = 0;
    float divisor_ = 1.0F;
    std::span<const std::uint32_t> counts_;
    std::span<const std::int32_t> columns_;
    std::vector<Gene> kept_;
    std::vector<Gene> part_;
    std::vector<std::uint8_t> hidden_;
    std::vector<std::uint8_t> head_hidden_;
    std::vector<std::uint8_t> chosen_;
    std::vector<std::uint8_t> lacks_;
    std::vector<std::uint32_t> places_;
    std::vector<std::pair<std::uint64_t, Gene>> order_;
    U64s numbers_;
};

}  // namespace

void tokenise_sequences(const TokenCells& cells, const SequenceRules& rules, const SequencePlan& plan,
                        const SequenceNumbers& numbers, const SequenceOut& out, std::size_t threads) {
    cells.check();
    const std::vector<std::uint64_t> mixed = mixed_tokens(cells.token_of);
    run_pieces(workers_for(cells.columns.size(), cells.size(), threads, kLeastTokenised), cells.size(), kTokenPiece, [&] {
        return [maker = std::make_unique<RowMaker>(cells, rules, plan, numbers, out, mixed)](std::size_t begin, std::size_t end) {
            for (std::size_t cell = begin; cell < end; ++cell) maker->make(cell);
        };
    });
}

}  // namespace cellmill
