// What every recipe of tokens needs: numbers keyed by cell and gene, the k smallest of them, quantile bins of counts.
// Knows arrays of one batch. Knows neither frames nor Python. The same rules in NumPy: kernel/reference/tokens.py.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <vector>

#include "parallel.hpp"
#include "random.hpp"

namespace cellmill {

// What a number is for: numbers of two purposes have nothing to do with each other.
enum class Purpose : std::uint64_t { sample = 2, mask = 3, ratio = 4, fill = 5, order = 6, draw = 7, part = 8, gene = 9 };

// The number of gene `token` of a cell. It depends on neither the place of the gene nor the other genes of the cell.
class GeneNumbers {
public:
    GeneNumbers(std::uint64_t cell_key, Purpose purpose) noexcept
        : stream_(stream_key(cell_key, static_cast<std::uint64_t>(purpose))) {}

    // `mixed` is mix64 of the token, which is worth keeping for all cells of a batch.
    std::uint64_t of_mixed(std::uint64_t mixed) const noexcept { return mix64(stream_ ^ mixed); }
    std::uint64_t operator()(std::uint64_t token) const noexcept { return of_mixed(mix64(token)); }

private:
    std::uint64_t stream_;
};

// One number of Purpose::gene serves three purposes at a third of the cost: which genes are kept is said by its upper half,
// which are masked by its lower half, and which bin one gets by the upper bits of a multiple, which hang on all of it.
inline std::uint64_t number_to_sample(std::uint64_t number) noexcept { return number >> 32 << 32; }
inline std::uint64_t number_to_mask(std::uint64_t number) noexcept { return number << 32; }
inline std::uint64_t number_to_bin(std::uint64_t number) noexcept { return number * kGamma; }

// 53 bits of a number, in [0, 1).
inline double to_uniform(std::uint64_t number) noexcept { return static_cast<double>(number >> 11) * 0x1p-53; }

// Cells of one batch over the columns of its axis; columns ascend within a cell.
struct TokenCells {
    std::span<const std::int64_t> indptr;
    std::span<const std::int32_t> columns;
    std::span<const std::uint32_t> counts;
    std::span<const std::int64_t> token_of;  // Of each column.
    std::span<const std::uint64_t> keys;     // Of each cell.

    std::size_t size() const noexcept { return keys.size(); }
    std::size_t begin(std::size_t cell) const noexcept { return static_cast<std::size_t>(indptr[cell]); }
    std::size_t nnz(std::size_t cell) const noexcept { return static_cast<std::size_t>(indptr[cell + 1] - indptr[cell]); }

    // Throws std::invalid_argument for arrays that contradict each other, so that nothing is read out of bounds later.
    void check() const {
        bool sound = indptr.size() == keys.size() + 1 && indptr.front() == 0 &&
                     indptr.back() == static_cast<std::int64_t>(columns.size()) && columns.size() == counts.size();
        for (std::size_t cell = 0; sound && cell < keys.size(); ++cell) sound = indptr[cell] <= indptr[cell + 1];
        if (!sound) throw std::invalid_argument("indptr must start at 0, never fall, and end at the number of nonzeros");
        const std::uint32_t n_columns = static_cast<std::uint32_t>(std::min<std::size_t>(token_of.size(), 1U << 31));
        std::uint32_t outside = 0;  // All in one go, without a branch for each.
        for (const std::int32_t column : columns) outside |= static_cast<std::uint32_t>(column) >= n_columns;
        if (outside != 0) throw std::invalid_argument("a column is out of range");
    }
};

// mix64 of the token of each column.
inline std::vector<std::uint64_t> mixed_tokens(std::span<const std::int64_t> token_of) {
    std::vector<std::uint64_t> mixed(token_of.size());
    for (std::size_t column = 0; column < mixed.size(); ++column) mixed[column] = mix64(static_cast<std::uint64_t>(token_of[column]));
    return mixed;
}

// Finds the k smallest of some numbers without sorting them: equal ones by place.
class Picker {
public:
    // Marks k of the numbers, the smallest; `chosen` gets one byte for each.
    void pick(std::span<const std::uint64_t> numbers, std::size_t k, std::uint8_t* chosen) {
        const std::size_t n = numbers.size();
        if (k >= n || k == 0) {
            std::fill_n(chosen, n, static_cast<std::uint8_t>(k > 0));
            return;
        }
        // Two tables, so that neighbours of one bucket need not wait for each other.
        std::array<std::array<std::uint32_t, kBuckets>, 2> sizes{};
        for (std::size_t i = 0; i + 1 < n; i += 2) {
            ++sizes[0][numbers[i] >> kShift];
            ++sizes[1][numbers[i + 1] >> kShift];
        }
        if (n % 2 == 1) ++sizes[0][numbers[n - 1] >> kShift];
        std::size_t bucket = 0;
        std::size_t below = 0;
        while (below + sizes[0][bucket] + sizes[1][bucket] < k) {
            below += sizes[0][bucket] + sizes[1][bucket];
            ++bucket;
        }
        if (inside_.size() < n) inside_.resize(n);
        std::size_t found = 0;
        for (std::size_t i = 0; i < n; ++i) {  // Without branches: which way they go is random.
            const std::uint64_t at = numbers[i] >> kShift;
            chosen[i] = at < bucket;
            inside_[found] = {numbers[i], static_cast<std::uint32_t>(i)};
            found += at == bucket;
        }
        const std::size_t more = k - below;
        const auto first = inside_.begin();
        if (more < found) std::nth_element(first, first + static_cast<std::ptrdiff_t>(more), first + static_cast<std::ptrdiff_t>(found));
        for (std::size_t i = 0; i < more; ++i) chosen[inside_[i].place] = 1;
    }

private:
    static constexpr std::size_t kBuckets = 256;
    static constexpr int kShift = 56;

    struct Placed {
        std::uint64_t number;
        std::uint32_t place;
        auto operator<=>(const Placed&) const = default;
    };
    std::vector<Placed> inside_;
};

// The distinct counts of one cell, ascending, each with how many genes have it; zeros are left out.
class CountLadder {
public:
    struct Step {
        std::uint32_t count;
        std::uint32_t upto;  // Genes with this count or a smaller one.
    };

    void measure(std::span<const std::uint32_t> counts) {
        steps_.clear();
        large_.clear();
        std::uint32_t most = 0;
        for (std::size_t i = 0; i < counts.size(); ++i) {
            const std::uint32_t count = counts[i];
            if (count < kSmall) {
                ++small_[i % kTables][count];
                most = std::max(most, count);
            } else {
                large_.push_back(count);
            }
        }
        std::uint32_t upto = 0;
        for (std::uint32_t count = 0; count <= most; ++count) {
            std::uint32_t here = 0;
            for (auto& table : small_) {
                here += table[count];
                table[count] = 0;
            }
            if (here == 0 || count == 0) continue;
            upto += here;
            steps_.push_back({count, upto});
        }
        std::sort(large_.begin(), large_.end());
        for (const std::uint32_t count : large_) {
            ++upto;
            if (!steps_.empty() && steps_.back().count == count)
                steps_.back().upto = upto;
            else
                steps_.push_back({count, upto});
        }
    }

    std::span<const Step> steps() const noexcept { return steps_; }
    std::size_t size() const noexcept { return steps_.empty() ? 0 : steps_.back().upto; }

private:
    static constexpr std::size_t kSmall = 512;
    static constexpr std::size_t kTables = 4;  // Most counts are 1: in one table each would wait for the one before.
    std::array<std::array<std::uint32_t, kSmall>, kTables> small_{};
    std::vector<std::uint32_t> large_;
    std::vector<Step> steps_;
};

enum class Arithmetic : int { q64 = 1, q32 = 2 };  // numpy's quantile in double, torch's in float.

// Levels of numpy.quantile(x, numpy.linspace(0, 1, m)), in double.
inline std::vector<double> levels64(std::size_t m) {
    std::vector<double> levels(m);
    const double step = m > 1 ? 1.0 / static_cast<double>(m - 1) : 0.0;
    for (std::size_t i = 0; i < m; ++i) levels[i] = static_cast<double>(i) * step;
    if (m > 1) levels[m - 1] = 1.0;
    return levels;
}

// A fused multiply-add of floats, rounded once. The product of two floats is exact in double; the sum may be rounded there,
// so std::fma does it: where the processor has no such instruction, the library computes it exactly.
inline float fused(float a, float b, float c) noexcept { return std::fma(a, b, c); }

// Levels of torch.linspace(0, 1, m) in float, as torch's vector kernels compute them.
inline std::vector<float> levels32(std::size_t m) {
    std::vector<float> levels(m);
    const float step = m > 1 ? 1.0F / static_cast<float>(m - 1) : 0.0F;
    for (std::size_t i = 0; i < m; ++i)
        levels[i] = i < m / 2 ? step * static_cast<float>(i) : fused(-step, static_cast<float>(m - 1 - i), 1.0F);
    return levels;
}

// Edge of one level, given the sorted values as a function of their place.
template <class Value, class At>
double edge64(double level, std::size_t n, const At& at) {
    const double v = level * static_cast<double>(n - 1);
    const double b = std::floor(v);
    const std::size_t lower = static_cast<std::size_t>(b);
    const Value low = at(lower);
    const Value high = at(std::min(lower + 1, n - 1));
    const Value d = static_cast<Value>(high - low);
    const double g = v - b;
    return g < 0.5 ? static_cast<double>(low) + static_cast<double>(d) * g : static_cast<double>(high) - static_cast<double>(d) * (1.0 - g);
}

template <class At>
float edge32(float level, std::size_t n, const At& at) {
    const float r = level * static_cast<float>(n - 1);
    const float b = std::trunc(r);
    const std::size_t lower = std::min(static_cast<std::size_t>(b), n - 1);
    const std::size_t upper = std::min(static_cast<std::size_t>(std::ceil(r)), n - 1);
    const float w = r - b;
    const float low = static_cast<float>(at(lower));
    const float high = static_cast<float>(at(upper));
    const float d = high - low;
    return w < 0.5F ? fused(w, d, low) : fused(w - 1.0F, d, high);
}

// How many edges lie below a value, and how many at it or below.
struct Between {
    std::int32_t below;
    std::int32_t upto;
};

// Quantile edges of the counts of one cell, and where each distinct count falls among them.
class CountBins {
public:
    CountBins(Arithmetic arithmetic, std::size_t n_edges)
        : arithmetic_(arithmetic), levels64_(levels64(n_edges)), levels32_(levels32(n_edges)), edges_(n_edges) {}

    void measure(std::span<const std::uint32_t> counts) {
        ladder_.measure(counts);
        between_.clear();
        if (ladder_.size() == 0) return;
        if (arithmetic_ == Arithmetic::q64)
            find_edges([&](std::size_t i, const auto& at) { return edge64<double>(levels64_[i], ladder_.size(), at); });
        else
            find_edges([&](std::size_t i, const auto& at) { return static_cast<double>(edge32(levels32_[i], ladder_.size(), at)); });
        std::size_t below = 0;
        std::size_t upto = 0;
        for (const CountLadder::Step& step : ladder_.steps()) {
            const double value = as_value(step.count);
            while (below < edges_.size() && edges_[below] < value) ++below;
            upto = std::max(upto, below);
            while (upto < edges_.size() && edges_[upto] <= value) ++upto;
            between_.push_back({static_cast<std::int32_t>(below), static_cast<std::int32_t>(upto)});
        }
        for (std::size_t i = 0; i < between_.size() && ladder_.steps()[i].count < kTable; ++i) {
            table_[ladder_.steps()[i].count] = between_[i];
            drawn_[ladder_.steps()[i].count] = to_drawn(between_[i]);
        }
    }

    // What a bin is drawn from: ceil(upto - u * width), which rounding may bring below the least that is meant.
    struct alignas(32) Drawn {
        double upto;
        double width;
        double least;
        double unused;  // Rows of 32 bytes.
    };
    static constexpr std::size_t kTable = 1024;

    // Of the counts below kTable that were measured.
    const Drawn* drawn() const noexcept { return drawn_.data(); }

    // The bin of a count that was measured; `zero` for a count of 0.
    float draw(std::uint32_t count, double u, float zero) const noexcept {
        const Drawn from = count < kTable ? drawn_[count] : to_drawn(of(count));
        const double at = from.upto - u * from.width;
        const std::int32_t down = static_cast<std::int32_t>(at);
        const double bin = std::max(static_cast<double>(down + (static_cast<double>(down) < at)), from.least);
        return count == 0 ? zero : static_cast<float>(bin);
    }

    // Of a count above 0 that was measured.
    Between of(std::uint32_t count) const noexcept {
        if (count < kTable) return table_[count];
        const auto steps = ladder_.steps();
        const auto at = std::lower_bound(steps.begin(), steps.end(), count,
                                         [](const CountLadder::Step& step, std::uint32_t c) { return step.count < c; });
        return between_[static_cast<std::size_t>(at - steps.begin())];
    }

private:
    static Drawn to_drawn(Between at) noexcept {
        return {static_cast<double>(at.upto), static_cast<double>(at.upto - at.below),
                static_cast<double>(at.below == at.upto ? at.upto : at.below + 1), 0.0};
    }

    double as_value(std::uint32_t count) const noexcept {
        return arithmetic_ == Arithmetic::q64 ? static_cast<double>(count) : static_cast<double>(static_cast<float>(count));
    }

    // Levels ascend, so the step that holds a place is at or behind that of the level before.
    template <class Edge>
    void find_edges(const Edge& edge) {
        const auto steps = ladder_.steps();
        std::size_t step = 0;
        for (std::size_t i = 0; i < edges_.size(); ++i) {
            const auto at = [&](std::size_t place) {
                while (step > 0 && steps[step - 1].upto > place) --step;
                while (steps[step].upto <= place) ++step;
                return as_value(steps[step].count);
            };
            edges_[i] = edge(i, at);
        }
    }

    Arithmetic arithmetic_;
    std::vector<double> levels64_;
    std::vector<float> levels32_;
    std::vector<double> edges_;
    CountLadder ladder_;
    std::vector<Between> between_;
    std::array<Between, kTable> table_{};
    std::array<Drawn, kTable> drawn_{};
};

// Work that pays for starting a thread, in nonzeros: one takes some 20 ns.
inline constexpr std::uint64_t kLeastTokenised = 20'000;
inline constexpr std::size_t kTokenPiece = 16;

}  // namespace cellmill
