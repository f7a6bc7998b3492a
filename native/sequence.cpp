#include "sequence.hpp"

#include <limits>
#include <memory>
#include <string>

#include "encoded_cells.hpp"
#include "gene_loops.hpp"
#include "order.hpp"
#include "token_ranks.hpp"

namespace cellmill {
namespace {

using U64s = std::vector<std::uint64_t>;

// A gene of a row: its place among the nonzeros of the cell, or from there on among the genes that fill the row up.
using Place = std::uint32_t;

// A double from 0 on (and not -0, which a draw next to 1 would give) as a number of the same order.
std::uint64_t as_order(double x) noexcept { return std::bit_cast<std::uint64_t>(x); }

class RowMaker {
public:
    RowMaker(const TokenCells& cells, const CellWindow& window, const SequenceRules& rules, const SequencePlan& plan, const SequenceNumbers& numbers,
             const SequenceOut& out, std::span<const GeneOfColumn> genes, std::span<const std::uint32_t> by_token)
        : cells_(cells), window_(window), rules_(rules), plan_(plan), given_(numbers), out_(out), genes_(genes), by_token_(by_token),
          bins_(rules.values == SequenceValues::bins32 ? Arithmetic::q32 : Arithmetic::q64,
                static_cast<std::size_t>(rules.n_bins - 1), gene_loops().tally),
          plain_(!rules.split_first && plan.n_fill.empty() && std::isnan(rules.spared) && !rules.mask_heads &&
                 numbers.bin.empty() && numbers.sample.empty() && numbers.mask.empty() &&
                 (rules.choose == Choose::first || (rules.choose == Choose::uniform && !rules.shuffled))) {}

    void make(std::size_t cell) {
        start(cell);
        if (plain_) return make_plain(cell);
        for_all();
        if (rules_.split_first) {
            mark(cell, kept_);
            part_from_hidden();
            choose(kept_, room(plan_.room[cell]));
            choose(part_, room(plan_.part_room[cell]));
            if (!plan_.n_fill.empty() && plan_.n_fill[cell] > 0) {
                fill(cell, kept_, room(plan_.room[cell]) - kept_.size());
                fill(cell, part_, room(plan_.part_room[cell]) - part_.size());
            }
            hidden_.assign(kept_.size(), 0);
        } else {
            choose(kept_, room(plan_.room[cell]));
            fill(cell, kept_, plan_.n_fill.empty() ? 0 : room(plan_.n_fill[cell]));
            mark(cell, kept_);
            if (rules_.split) {
                part_from_hidden();
                hidden_.assign(kept_.size(), 0);
            }
        }
        write(cell);
        if (rules_.split || rules_.split_first) write_part(cell);
    }

private:
    static std::size_t room(std::int64_t wanted) { return static_cast<std::size_t>(std::max<std::int64_t>(wanted, 0)); }

    void start(std::size_t cell) {
        begin_ = cells_.begin(cell);
        nnz_ = cells_.nnz(cell);
        counts_ = window_.counts(cell);
        columns_ = window_.columns(cell);
        key_ = cells_.keys[cell];
        fixed_ = std::min(nnz_, static_cast<std::size_t>(rules_.keep));
        if (rules_.values == SequenceValues::bins64 || rules_.values == SequenceValues::bins32) bins_.measure(counts_.subspan(fixed_));
        if (rules_.values == SequenceValues::log1p) {
            double sum = 0.0;
            for (const std::uint32_t count : counts_.subspan(fixed_)) sum += count;
            divisor_ = static_cast<float>(sum) + 1e-9F;
        }
    }

    void for_all() {
        walked_ = 0;
        fillers_.clear();
        kept_.resize(nnz_ - fixed_);
        for (std::size_t i = fixed_; i < nnz_; ++i) kept_[i - fixed_] = static_cast<Place>(i);
    }

    // A row in which nothing is filled in: what most rows are, with the least work for each gene.
    void make_plain(std::size_t cell) {
        const std::size_t n_own = nnz_ - fixed_;
        const std::size_t n = std::min(n_own, room(plan_.room[cell]));
        const bool chooses = n < n_own && rules_.choose == Choose::uniform;
        const std::uint32_t* counts = counts_.data() + fixed_;
        if (numbers_.size() < n_own) numbers_.resize(n_own);
        if (tokens_.size() < n_own) tokens_.resize(n_own);
        const std::uint64_t stream = stream_key(key_, static_cast<std::uint64_t>(Purpose::gene));
        loops_.number(stream, genes_.data(), columns_.data() + fixed_, chooses ? n_own : n, numbers_.data(), tokens_.data());
        if (chooses) {
            choose_plain(counts, n_own, n);
            counts = plain_counts_.data();
        }
        mask_plain(cell, n);
        rules_.split ? write_split(cell, counts, n) : write_plain(cell, counts, n);
    }

    void choose_plain(const std::uint32_t* counts, std::size_t n_own, std::size_t n) {
        if (plain_counts_.size() < n_own + kSlack) plain_counts_.resize(n_own + kSlack);
        if (n == 0) return;
        const HalfThreshold::Found last = threshold_.find(numbers_.data(), n_own, n, 32);
        if (last.all_equal) {
            loops_.keep(numbers_.data(), tokens_.data(), counts, n_own, last.value, plain_counts_.data());
            return;
        }
        std::size_t at = 0;
        std::size_t equal = 0;
        for (std::size_t i = 0; i < n_own; ++i) {
            const std::uint64_t number = numbers_[i];
            tokens_[at] = tokens_[i];
            plain_counts_[at] = counts[i];
            numbers_[at] = number;
            const std::uint32_t rank = static_cast<std::uint32_t>(number >> 32);
            const bool ties = rank == last.value;
            at += rank < last.value || (ties && equal < last.equal);
            equal += ties;
        }
    }

    void mask_plain(std::size_t cell, std::size_t n) {
        head_hidden_.assign(plan_.n_head, 0);
        hidden_.assign(n, 0);
        if (plan_.n_mask.empty()) return;
        const std::size_t end = std::min(n, room(plan_.maskable[cell]));
        const std::size_t begin = std::min(end, static_cast<std::size_t>(rules_.skip));
        const std::size_t n_open = end - begin;
        const double ratio = plan_.ratio[cell];
        const std::uint64_t* const numbers = numbers_.data() + begin;
        std::uint8_t* const hidden = hidden_.data() + begin;
        if (plan_.n_mask[cell] == -1) {
            for (std::size_t i = 0; i < n_open; ++i) hidden[i] = to_uniform(number_to_mask(numbers[i])) < ratio;
            return;
        }
        const std::size_t wanted = std::min(n_open, plan_.n_mask[cell] < 0 ? static_cast<std::size_t>(static_cast<double>(n_open) * ratio) : room(plan_.n_mask[cell]));
        if (wanted == 0 || wanted == n_open) {
            std::fill_n(hidden, n_open, static_cast<std::uint8_t>(wanted > 0));
            return;
        }
        const HalfThreshold::Found last = threshold_.find(numbers, n_open, wanted, 0);
        if (last.all_equal) {
            loops_.hide(numbers, n_open, last.value, hidden);
            return;
        }
        std::size_t equal = 0;
        for (std::size_t i = 0; i < n_open; ++i) {
            const std::uint32_t rank = static_cast<std::uint32_t>(numbers[i]);
            hidden[i] = rank < last.value || (rank == last.value && equal++ < last.equal);
        }
    }

    void write_plain(std::size_t cell, const std::uint32_t* counts, std::size_t n) {
        std::size_t at = write_front(cell, n);
        float* const own = out_.target != nullptr ? out_.target + at : out_.values + at;
        std::copy_n(tokens_.data(), n, out_.genes + at);
        value_plain(counts, n, own);
        write_behind(cell, at, n, own);
        if (out_.raw != nullptr)
            for (std::size_t i = 0; i < n; ++i) out_.raw[at + i] = static_cast<float>(counts[i]);
    }

    void value_plain(const std::uint32_t* counts, std::size_t n, float* to) const {
        if (rules_.values == SequenceValues::bins64 && rules_.ties == Ties::keyed) return loops_.draw(bins_, numbers_.data(), counts, n, rules_.zero_value, to);
        for (std::size_t i = 0; i < n; ++i) to[i] = counts[i] == 0 ? rules_.zero_value : value_of(counts[i], 0.0);
    }

    // The same where what is hidden goes to a part of its own.
    void write_split(std::size_t cell, const std::uint32_t* counts, std::size_t n) {
        if (drawn_.size() < n) drawn_.resize(n);
        value_plain(counts, n, drawn_.data());
        kept_.resize(n);
        for (std::size_t i = 0; i < n; ++i) kept_[i] = static_cast<Place>(i);
        part_from_hidden();
        hidden_.assign(kept_.size(), 0);
        const auto write_genes_of = [&](const std::vector<Place>& places, std::int64_t* genes, float* values, float* raw) {
            for (std::size_t i = 0; i < places.size(); ++i) {
                genes[i] = tokens_[places[i]];
                values[i] = drawn_[places[i]];
            }
            for (std::size_t i = 0; raw != nullptr && i < places.size(); ++i) raw[i] = static_cast<float>(counts[places[i]]);
        };
        const std::size_t at = write_front(cell, kept_.size());
        float* const own = (out_.target != nullptr ? out_.target : out_.values) + at;
        write_genes_of(kept_, out_.genes + at, own, out_.raw == nullptr ? nullptr : out_.raw + at);
        write_behind(cell, at, kept_.size(), own);
        const std::size_t from = part_from(cell);
        write_genes_of(part_, out_.part_genes + from, out_.part_target + from, out_.part_raw == nullptr ? nullptr : out_.part_raw + from);
        end_part(cell);
    }

    std::int32_t column(Place place) const noexcept { return place < nnz_ ? columns_[place] : fillers_[place - nnz_]; }
    std::uint32_t count(Place place) const noexcept { return place < nnz_ ? counts_[place] : 0; }

    // The number of each gene to keep or to mask it by.
    void number(const std::vector<Place>& genes, std::span<const std::uint64_t> given, std::uint64_t (*part)(std::uint64_t), std::uint64_t* to) const noexcept {
        const GeneNumbers keyed(key_, Purpose::gene);
        for (std::size_t i = 0; i < genes.size(); ++i)
            to[i] = !given.empty() && genes[i] < nnz_ ? given[begin_ + genes[i]] : part(keyed.of_mixed(genes_[static_cast<std::size_t>(column(genes[i]))].mixed));
    }

    // Keeps as many genes as there is room for; they stay in the order of the axis unless rows are shuffled.
    void choose(std::vector<Place>& genes, std::size_t most) {
        if (genes.size() <= most) return;
        if (rules_.choose == Choose::first) {
            genes.resize(most);
            return;
        }
        numbers_.resize(genes.size());
        number(genes, given_.sample, number_to_sample, numbers_.data());
        if (rules_.choose != Choose::uniform)
            for (std::size_t i = 0; i < genes.size(); ++i) numbers_[i] = rank(counts_[genes[i]], numbers_[i]);
        chosen_.resize(genes.size());
        picker_.pick(numbers_, most, chosen_.data());
        std::size_t at = 0;
        for (std::size_t i = 0; i < genes.size(); ++i) {
            numbers_[at] = numbers_[i];
            genes[at] = genes[i];
            at += chosen_[i];
        }
        genes.resize(most);
        if (rules_.shuffled) shuffle(genes);
    }

    // Genes of the smallest ranks are kept. By expression: the first arrivals of processes whose rates are the counts, which
    // is drawing one after the other with probability count / sum of what is left.
    std::uint64_t rank(std::uint32_t count, std::uint64_t number) const noexcept {
        if (rules_.choose == Choose::largest) return (std::uint64_t{~count} << 32) | (number >> 32);
        return count == 0 ? std::numeric_limits<std::uint64_t>::max()
                          : as_order((0.0 - std::log((static_cast<double>(number >> 11) + 0.5) * 0x1p-53)) / count);
    }

    void shuffle(std::vector<Place>& genes) {
        order_.resize(genes.size());
        for (std::size_t i = 0; i < genes.size(); ++i) order_[i] = {numbers_[i], genes[i]};
        std::stable_sort(order_.begin(), order_.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
        for (std::size_t i = 0; i < genes.size(); ++i) genes[i] = order_[i].second;
    }

    // Adds genes that the cell lacks, in the order of a keyed bijection of the columns, as their tokens order them.
    void fill(std::size_t cell, std::vector<Place>& genes, std::size_t wanted) {
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
            const std::size_t column = by_token_[order(walked_++)];
            if (!lacks_[column] || !allowed[column]) continue;
            genes.push_back(static_cast<Place>(nnz_ + fillers_.size()));
            fillers_.push_back(static_cast<std::int32_t>(column));
            ++done;
        }
    }

    // Says in `hidden_` which genes of a row are masked, in `head_hidden_` which of what stands in front of them.
    void mark(std::size_t cell, const std::vector<Place>& genes) {
        hidden_.assign(genes.size(), 0);
        head_hidden_.assign(plan_.n_head, 0);
        if (plan_.n_mask.empty()) return;
        const std::size_t end = std::min(genes.size(), room(plan_.maskable[cell]));
        const std::size_t begin = std::min(end, static_cast<std::size_t>(rules_.skip));
        if (rules_.mask_heads || !std::isnan(rules_.spared)) return mark_some(cell, genes, begin, end);
        numbers_.resize(genes.size());
        number(genes, given_.mask, number_to_mask, numbers_.data());
        mask(cell, std::span(numbers_).subspan(begin, end - begin), hidden_.data() + begin);
    }

    // The same where not all of them may be masked.
    void mark_some(std::size_t cell, const std::vector<Place>& genes, std::size_t begin, std::size_t end) {
        all_.resize(genes.size());
        number(genes, given_.mask, number_to_mask, all_.data());
        numbers_.clear();
        places_.clear();
        const GeneNumbers keyed(key_, Purpose::gene);
        for (std::size_t i = 0; rules_.mask_heads && i < plan_.n_head; ++i) {
            if (static_cast<double>(plan_.head_values[cell * plan_.n_head + i]) == rules_.spared) continue;
            numbers_.push_back(number_to_mask(keyed(static_cast<std::uint64_t>(plan_.head_tokens[cell * plan_.n_head + i]))));
            places_.push_back(static_cast<std::uint32_t>(i));
        }
        const std::size_t n_heads = places_.size();
        for (std::size_t i = begin; i < end; ++i) {
            if (!std::isnan(rules_.spared) && static_cast<double>(value(genes[i])) == rules_.spared) continue;
            numbers_.push_back(all_[i]);
            places_.push_back(static_cast<std::uint32_t>(i));
        }
        chosen_.resize(numbers_.size());
        mask(cell, numbers_, chosen_.data());
        for (std::size_t i = 0; i < places_.size(); ++i) (i < n_heads ? head_hidden_ : hidden_)[places_[i]] = chosen_[i];
    }

    void mask(std::size_t cell, std::span<const std::uint64_t> numbers, std::uint8_t* chosen) {
        const std::int64_t wanted = plan_.n_mask[cell];
        const double ratio = plan_.ratio[cell];
        if (wanted == -1) {
            for (std::size_t i = 0; i < numbers.size(); ++i) chosen[i] = to_uniform(numbers[i]) < ratio;
            return;
        }
        const std::size_t n = wanted < 0 ? static_cast<std::size_t>(static_cast<double>(numbers.size()) * ratio) : room(wanted);
        picker_.pick(numbers, std::min(numbers.size(), n), chosen);
    }

    // What is hidden goes to the part, what is seen stays.
    void part_from_hidden() {
        part_.resize(kept_.size());
        std::size_t seen = 0;
        std::size_t unseen = 0;
        for (std::size_t i = 0; i < kept_.size(); ++i) {
            const Place place = kept_[i];
            part_[unseen] = place;
            kept_[seen] = place;
            unseen += hidden_[i];
            seen += 1 - hidden_[i];
        }
        kept_.resize(seen);
        part_.resize(unseen);
    }

    float value(Place place) const noexcept {
        const std::uint32_t own = count(place);
        if (own == 0) return place < nnz_ ? rules_.zero_value : 0.0F;
        if (rules_.values != SequenceValues::bins64 || rules_.ties != Ties::keyed) return value_of(own, 0.0);
        const GeneNumbers keyed(key_, Purpose::gene);
        return value_of(own, given_.bin.empty() ? to_uniform(number_to_bin(keyed.of_mixed(genes_[static_cast<std::size_t>(columns_[place])].mixed)))
                                                : given_.bin[begin_ + place]);
    }

    // Of a count above 0; `u` is for bins that are drawn.
    float value_of(std::uint32_t own, double u) const noexcept {
        if (rules_.values == SequenceValues::raw) return static_cast<float>(own);
        if (rules_.values == SequenceValues::log1p)
            return static_cast<float>(std::log1p(static_cast<double>(static_cast<float>(own) / divisor_ * static_cast<float>(rules_.target_sum))));
        if (rules_.values == SequenceValues::bins64 && rules_.ties == Ties::keyed) return bins_.draw(own, u, rules_.zero_value);
        const Between between = bins_.of(own);
        if (rules_.values == SequenceValues::bins32)  // Bins from 1: the smallest count has no edge below it.
            return static_cast<float>(rules_.ties == Ties::highest ? between.upto : between.below + 1);
        return static_cast<float>(between.below == between.upto || rules_.ties == Ties::highest ? between.upto : between.below + 1);
    }

    // The values of some genes.
    void value_all(const std::vector<Place>& genes, float* to) const noexcept {
        for (std::size_t i = 0; i < genes.size(); ++i) to[i] = value(genes[i]);
    }

    void write(std::size_t cell) {
        const std::size_t at = write_front(cell, kept_.size());
        float* const own = out_.target != nullptr ? out_.target + at : out_.values + at;
        write_genes(kept_, out_.genes + at);
        value_all(kept_, own);
        write_behind(cell, at, kept_.size(), own);
        if (out_.raw != nullptr) write_raw(kept_, out_.raw + at);
    }

    // Writes what stands in front of n genes, and returns where they begin.
    std::size_t write_front(std::size_t cell, std::size_t n) const {
        const std::size_t from = static_cast<std::size_t>(out_.starts[cell]);
        if (from + plan_.n_head + fixed_ + n > static_cast<std::size_t>(out_.starts[cell + 1]))
            throw std::invalid_argument("row " + std::to_string(cell) + " is too short for its genes");
        std::size_t at = from;
        for (std::size_t i = 0; i < plan_.n_head; ++i, ++at) {
            const float head = plan_.head_values[cell * plan_.n_head + i];
            put(at, plan_.head_tokens[cell * plan_.n_head + i], head_hidden_[i] ? rules_.mask_value : head, head, head, head_hidden_[i]);
        }
        for (std::size_t i = 0; i < fixed_; ++i, ++at) {
            const float raw = static_cast<float>(counts_[i]);
            put(at, cells_.token_of[static_cast<std::size_t>(columns_[i])], raw, raw, raw, 0);
        }
        return at;
    }

    // Writes what is seen of n genes with their own values, and the padding behind them.
    void write_behind(std::size_t cell, std::size_t at, std::size_t n, const float* own) const noexcept {
        // Chosen between by bits: a branch would be guessed wrong for every other gene.
        const std::uint32_t masked = std::bit_cast<std::uint32_t>(rules_.mask_value);
        float* const seen = out_.values + at;
        const std::uint8_t* const hidden = hidden_.data();
        for (std::size_t i = 0; i < n; ++i) {
            const std::uint32_t all = 0U - hidden[i];
            seen[i] = std::bit_cast<float>((masked & all) | (std::bit_cast<std::uint32_t>(own[i]) & ~all));
        }
        if (out_.mask != nullptr) std::copy_n(hidden, n, out_.mask + at);
        out_.lengths[cell] = static_cast<std::int64_t>(at + n) - out_.starts[cell];
        const std::size_t end = static_cast<std::size_t>(out_.starts[cell + 1]);
        const std::size_t upto = at + n;
        std::fill(out_.genes + upto, out_.genes + end, rules_.pad_token);
        for (float* const row : {out_.values, out_.target, out_.raw})
            if (row != nullptr) std::fill(row + upto, row + end, rules_.pad_value);
        if (out_.mask != nullptr) std::fill(out_.mask + upto, out_.mask + end, std::uint8_t{0});
    }

    void write_genes(const std::vector<Place>& genes, std::int64_t* to) const noexcept {
        const std::int64_t* const token_of = cells_.token_of.data();
        for (std::size_t i = 0; i < genes.size(); ++i) to[i] = token_of[static_cast<std::size_t>(column(genes[i]))];
    }

    void write_raw(const std::vector<Place>& genes, float* to) const noexcept {
        for (std::size_t i = 0; i < genes.size(); ++i) to[i] = static_cast<float>(count(genes[i]));
    }

    void put(std::size_t at, std::int64_t token, float value, float target, float raw, std::uint8_t hidden) const noexcept {
        out_.genes[at] = token;
        out_.values[at] = value;
        if (out_.target != nullptr) out_.target[at] = target;
        if (out_.raw != nullptr) out_.raw[at] = raw;
        if (out_.mask != nullptr) out_.mask[at] = hidden;
    }

    void write_part(std::size_t cell) const {
        const std::size_t from = part_from(cell);
        write_genes(part_, out_.part_genes + from);
        value_all(part_, out_.part_target + from);
        if (out_.part_raw != nullptr) write_raw(part_, out_.part_raw + from);
        end_part(cell);
    }

    // Where the part of a cell begins.
    std::size_t part_from(std::size_t cell) const {
        const std::size_t from = static_cast<std::size_t>(out_.part_starts[cell]);
        if (from + part_.size() > static_cast<std::size_t>(out_.part_starts[cell + 1]))
            throw std::invalid_argument("part " + std::to_string(cell) + " is too short for its genes");
        return from;
    }

    // Writes the padding behind a part.
    void end_part(std::size_t cell) const noexcept {
        const std::int64_t upto = out_.part_starts[cell] + static_cast<std::int64_t>(part_.size());
        const std::int64_t end = out_.part_starts[cell + 1];
        std::fill(out_.part_genes + upto, out_.part_genes + end, rules_.pad_token);
        std::fill(out_.part_target + upto, out_.part_target + end, rules_.pad_value);
        if (out_.part_raw != nullptr) std::fill(out_.part_raw + upto, out_.part_raw + end, rules_.pad_value);
        out_.part_lengths[cell] = static_cast<std::int64_t>(part_.size());
    }

    const TokenCells& cells_;
    const CellWindow& window_;
    const SequenceRules& rules_;
    const SequencePlan& plan_;
    const SequenceNumbers& given_;
    const SequenceOut& out_;
    std::span<const GeneOfColumn> genes_;  // Of each column.
    std::span<const std::uint32_t> by_token_;  // Columns; empty where nothing is filled up.
    CountBins bins_;
    bool plain_;
    Picker picker_;
    const GeneLoops& loops_ = gene_loops();
    HalfThreshold threshold_{loops_};
    std::size_t begin_ = 0;
    std::size_t nnz_ = 0;
    std::size_t fixed_ = 0;   // Genes at the beginning that stay as they are.
    std::size_t walked_ = 0;  // Places of the order of fillers that were looked at.
    std::uint64_t key_ = 0;
    float divisor_ = 1.0F;
    std::span<const std::uint32_t> counts_;
    std::span<const std::int32_t> columns_;
    std::vector<std::int64_t> tokens_;
    std::vector<std::uint32_t> plain_counts_;
    std::vector<float> drawn_;
    std::vector<Place> kept_;
    std::vector<Place> part_;
    std::vector<std::int32_t> fillers_;  // Columns.
    std::vector<std::uint8_t> hidden_;
    std::vector<std::uint8_t> head_hidden_;
    std::vector<std::uint8_t> chosen_;
    std::vector<std::uint8_t> lacks_;
    std::vector<std::uint32_t> places_;
    std::vector<std::pair<std::uint64_t, Place>> order_;
    U64s numbers_;
    U64s all_;
};

}  // namespace

void tokenise_sequences(const TokenCells& cells, const SequenceRules& rules, const SequencePlan& plan,
                        const SequenceNumbers& numbers, const SequenceOut& out, std::size_t threads) {
    cells.check();
    std::vector<GeneOfColumn> genes(cells.token_of.size());
    for (std::size_t column = 0; column < genes.size(); ++column)
        genes[column] = {mix64(static_cast<std::uint64_t>(cells.token_of[column])), cells.token_of[column]};
    std::vector<std::uint32_t> by_token;
    if (!plan.n_fill.empty()) {
        const ColumnRanks ranks = ranks_of_tokens(cells.token_of);
        for (std::size_t rank = 0; rank < ranks.size(); ++rank) by_token.push_back(ranks.column(rank));
    }
    run_cells(cells, cells.entries(), threads, [&](const CellWindow& window) {
        return std::make_unique<RowMaker>(cells, window, rules, plan, numbers, out, genes, by_token);
    });
}

}  // namespace cellmill
