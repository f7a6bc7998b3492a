#include "rank.hpp"

#include "encoded_cells.hpp"

#include <algorithm>
#include <bit>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace cellmill {
namespace {

constexpr double kPer = 1e4;

struct Entry {
    std::uint64_t number;
    std::uint32_t place;
};

// Sorts entries by their numbers, equal ones as they stood. Two passes of counting over the first bits in which the numbers
// differ, about twice as many as tell the entries apart, then the few runs that these leave equal.
class Sorter {
public:
    void sort(std::span<Entry> entries) {
        if (!order(entries)) return;
        std::copy(sorted_.begin(), sorted_.end(), entries.begin());
    }

    // The same without a copy, of all that there is.
    void sort_all(std::vector<Entry>& entries) {
        if (order(entries)) entries.swap(sorted_);
    }

private:
    // Whether they are in order in `sorted_`, or where they were.
    bool order(std::span<Entry> entries) {
        if (entries.size() < kLeast) {
            insert(entries);
            return false;
        }
        const auto [low, high] = range(entries);
        bits_ = std::min(static_cast<int>(std::bit_width(entries.size())) - 1, kMostBits);
        const int shift = std::max(0, static_cast<int>(std::bit_width(high - low)) - 2 * bits_);
        pack(entries, low, shift);
        pass(packed_, other_, low_sizes_, 32);
        pass(other_, packed_, high_sizes_, 32 + bits_);
        if (shift > 0) finish(entries);
        sorted_.resize(entries.size());
        for (std::size_t i = 0; i < entries.size(); ++i) sorted_[i] = entries[static_cast<std::uint32_t>(packed_[i])];
        return true;
    }

    static constexpr int kMostBits = 11;
    static constexpr std::size_t kLeast = 64;
    using Sizes = std::vector<std::uint32_t>;

    static void insert(std::span<Entry> entries) {
        for (std::size_t i = 1; i < entries.size(); ++i) {
            const Entry entry = entries[i];
            std::size_t at = i;
            for (; at > 0 && entries[at - 1].number > entry.number; --at) entries[at] = entries[at - 1];
            entries[at] = entry;
        }
    }

    static std::pair<std::uint64_t, std::uint64_t> range(std::span<const Entry> entries) {
        std::uint64_t low = std::numeric_limits<std::uint64_t>::max();
        std::uint64_t high = 0;
        for (const Entry& entry : entries) {
            low = std::min(low, entry.number);
            high = std::max(high, entry.number);
        }
        return {low, high};
    }

    // The leading bits of each number above its place among the entries.
    void pack(std::span<const Entry> entries, std::uint64_t low, int shift) {
        packed_.resize(entries.size());
        other_.resize(entries.size());
        low_sizes_.assign(std::size_t{1} << bits_, 0);
        high_sizes_.assign(std::size_t{1} << bits_, 0);
        for (std::size_t i = 0; i < entries.size(); ++i) {
            const std::uint64_t key = (entries[i].number - low) >> shift;
            ++low_sizes_[key & (low_sizes_.size() - 1)];
            ++high_sizes_[key >> bits_];
            packed_[i] = key << 32 | i;
        }
    }

    static void pass(const std::vector<std::uint64_t>& from, std::vector<std::uint64_t>& to, Sizes& sizes, int shift) {
        std::uint32_t upto = 0;
        for (std::uint32_t& size : sizes) upto += std::exchange(size, upto);
        for (const std::uint64_t entry : from) to[sizes[entry >> shift & (sizes.size() - 1)]++] = entry;
    }

    void finish(std::span<const Entry> entries) {
        const auto less = [&](std::uint64_t left, std::uint64_t right) {
            const std::uint64_t a = entries[static_cast<std::uint32_t>(left)].number;
            const std::uint64_t b = entries[static_cast<std::uint32_t>(right)].number;
            return a != b ? a < b : left < right;
        };
        for (std::size_t begin = 0; begin < packed_.size();) {
            std::size_t end = begin + 1;
            bool ordered = true;
            for (; end < packed_.size() && packed_[end] >> 32 == packed_[begin] >> 32; ++end)
                ordered = ordered && less(packed_[end - 1], packed_[end]);
            if (!ordered) std::sort(packed_.begin() + static_cast<std::ptrdiff_t>(begin), packed_.begin() + static_cast<std::ptrdiff_t>(end), less);
            begin = end;
        }
    }

    std::vector<std::uint64_t> packed_;
    std::vector<std::uint64_t> other_;
    std::vector<Entry> sorted_;
    int bits_ = kMostBits;
    Sizes low_sizes_;
    Sizes high_sizes_;
};

// Numbers that ascend where values descend.
std::uint64_t descending(double value) noexcept {
    const std::uint64_t bits = std::bit_cast<std::uint64_t>(value + 0.0);  // -0 becomes 0.
    constexpr std::uint64_t sign = std::uint64_t{1} << 63;
    return ~(bits & sign ? ~bits : bits | sign);
}

class RowRanker {
public:
    RowRanker(const TokenCells& cells, const CellWindow& window, const RankRules& rules, const RankPlan& plan, const RankOut& out)
        : cells_(cells), window_(window), rules_(rules), plan_(plan), out_(out) {}

    void make(std::size_t cell) {
        begin_ = cells_.begin(cell);
        columns_ = window_.columns(cell).data();
        counts_ = window_.counts(cell).data();
        const std::size_t n = cells_.nnz(cell);
        key_ = cells_.keys[cell];
        const double total = plan_.totals.empty() ? 0.0 : plan_.totals[cell];
        if (values_.size() < n) {
            values_.resize(n);
            tokens_.resize(n);
            order_.resize(n);
        }
        if (plan_.keyed.empty() || !order_by_keys(n)) order_by_values(n, total);
        write(cell, total, n);
    }

private:
    std::size_t column(std::size_t place) const noexcept { return static_cast<std::size_t>(columns_[place]); }

    // As by values, with what is known of the values beforehand: few of them are compared.
    bool order_by_keys(std::size_t n) {
        if (!by_key_.order(plan_.keyed.data(), columns_, counts_, n, values_.data(), tokens_.data())) return false;
        const auto before = [this](std::uint32_t a, std::uint32_t b) {
            if (values_[a] != values_[b]) return values_[a] > values_[b];
            return tokens_[a] != tokens_[b] ? tokens_[a] < tokens_[b] : a < b;
        };
        const std::span<std::uint32_t> rest = by_key_.rest();
        std::sort(rest.begin(), rest.end(), before);
        const auto ordered = by_key_.ordered();
        std::merge(ordered.begin(), ordered.end(), rest.begin(), rest.end(), order_.begin(), before);
        return true;
    }

    void order_by_values(std::size_t n, double total) {
        entries_.resize(n);
        if (rules_.single)
            measure(static_cast<float>(total));
        else
            measure(total);
        sorter_.sort_all(entries_);
        untie();
        for (std::size_t i = 0; i < n; ++i) order_[i] = entries_[i].place;
        for (std::size_t i = 0; i < n; ++i) tokens_[i] = cells_.token_of[column(i)];
    }

    template <class Real>
    void measure(Real total) {
        const Real share = Real{1} / total;
        const Real scale = static_cast<Real>(kPer) / total;
        switch (rules_.values) {
            case RankValues::ratio: return measure_each([](double exact, double divisor) { return exact / divisor; });
            case RankValues::divided:
                return measure_each([=](double exact, double divisor) {
                    return static_cast<double>(static_cast<Real>(exact) / total * static_cast<Real>(kPer)) / divisor;
                });
            case RankValues::reciprocal:
                return measure_each([=](double exact, double divisor) {
                    return static_cast<double>(static_cast<Real>(exact) * share * static_cast<Real>(kPer)) * (1.0 / divisor);
                });
            case RankValues::scaled:
                return measure_each([=](double exact, double divisor) {
                    return static_cast<double>(static_cast<Real>(exact) * scale) / divisor;
                });
        }
    }

    template <class Value>
    void measure_each(const Value& value) {
        const double* const divisors = plan_.divisors.data();
        const std::int32_t* const columns = columns_;
        const std::uint32_t* const counts = counts_;
        const double* const given = plan_.values.empty() ? nullptr : plan_.values.data() + begin_;
        for (std::size_t i = 0; i < entries_.size(); ++i) {
            const double made = value(given == nullptr ? static_cast<double>(counts[i]) : given[i], divisors[columns[i]]);
            values_[i] = made;
            entries_[i] = {descending(made), static_cast<std::uint32_t>(i)};
        }
    }

    // Orders each run of equal values.
    void untie() {
        for (std::size_t begin = 0; begin < entries_.size();) {
            std::size_t end = begin + 1;
            while (end < entries_.size() && entries_[end].number == entries_[begin].number) ++end;
            if (end - begin > 1) {
                const std::span<Entry> run(entries_.data() + begin, end - begin);
                const GeneNumbers keyed(key_, Purpose::order);
                for (Entry& entry : run) entry.number = tie(entry.place, keyed);
                sorter_.sort(run);
            }
            begin = end;
        }
    }

    std::uint64_t tie(std::size_t place, const GeneNumbers& keyed) const noexcept {
        if (!plan_.ties.empty()) return plan_.ties[begin_ + place];
        const auto token = static_cast<std::uint64_t>(cells_.token_of[column(place)]);
        return rules_.keyed_ties ? keyed(token) : token ^ std::uint64_t{1} << 63;  // Signed order.
    }

    void write(std::size_t cell, double total, std::size_t n_genes) {
        const std::size_t from = static_cast<std::size_t>(out_.starts[cell]);
        const std::size_t end = static_cast<std::size_t>(out_.starts[cell + 1]);
        const std::size_t most = static_cast<std::size_t>(std::max<std::int64_t>(plan_.room[cell], 0));
        const std::size_t n = std::min(n_genes, most);
        const std::size_t upto = from + plan_.n_head + n + plan_.tail.size();
        if (upto > end) throw std::invalid_argument("row " + std::to_string(cell) + " is too short for its genes");
        std::size_t at = from;
        for (std::size_t i = 0; i < plan_.n_head; ++i) put(at++, plan_.head[cell * plan_.n_head + i]);
        const std::uint32_t* const order = order_.data();
        for (std::size_t i = 0; i < n; ++i) out_.genes[at + i] = tokens_[order[i]] + rules_.token_offset;
        for (std::size_t i = 0; i < n; ++i) out_.values[at + i] = static_cast<float>(values_[order[i]]);
        for (std::size_t i = 0; out_.ranked != nullptr && i < n; ++i) out_.ranked[at + i] = values_[order_[i]];
        for (std::size_t i = 0; out_.per_10k != nullptr && i < n; ++i) out_.per_10k[at + i] = per_10k(order_[i], total);
        at += n;
        for (const std::int64_t token : plan_.tail) put(at++, token);
        std::fill(out_.genes + at, out_.genes + end, rules_.pad_token);
        std::fill(out_.values + at, out_.values + end, 0.0F);
        for (double* const row : {out_.ranked, out_.per_10k})
            if (row != nullptr) std::fill(row + at, row + end, 0.0);
        out_.lengths[cell] = static_cast<std::int64_t>(upto - from);
    }

    double per_10k(std::size_t place, double total) const noexcept {
        const double x = plan_.values.empty() ? static_cast<double>(counts_[place]) : plan_.values[begin_ + place];
        const bool reciprocal = rules_.values == RankValues::reciprocal;
        if (!rules_.single) return reciprocal ? x * (1.0 / total) * kPer : x / total * kPer;
        const float n = static_cast<float>(total);
        return static_cast<double>(reciprocal ? static_cast<float>(x) * (1.0F / n) * 1e4F : static_cast<float>(x) / n * 1e4F);
    }

    void put(std::size_t at, std::int64_t token, double value = 0.0) const noexcept {
        out_.genes[at] = token;
        out_.values[at] = static_cast<float>(value);
        if (out_.ranked != nullptr) out_.ranked[at] = value;
        if (out_.per_10k != nullptr) out_.per_10k[at] = 0.0;
    }

    const TokenCells& cells_;
    const CellWindow& window_;
    const RankRules& rules_;
    const RankPlan& plan_;
    const RankOut& out_;
    Sorter sorter_;
    std::size_t begin_ = 0;
    const std::int32_t* columns_ = nullptr;  // Of the cell at hand.
    const std::uint32_t* counts_ = nullptr;
    std::uint64_t key_ = 0;
    std::vector<double> values_;
    std::vector<std::int64_t> tokens_;
    std::vector<Entry> entries_;
    std::vector<std::uint32_t> order_;  // Places of the entries of the cell.
    KeyOrder by_key_;
};

}  // namespace

void rank_genes(const TokenCells& cells, const RankRules& rules, const RankPlan& plan, const RankOut& out, std::size_t threads) {
    cells.check();
    run_cells(cells, cells.entries(), threads, [&](const CellWindow& window) {
        return std::make_unique<RowRanker>(cells, window, rules, plan, out);
    });
}

}  // namespace cellmill
