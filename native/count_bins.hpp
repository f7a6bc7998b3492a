// Quantile bins of the counts of one cell, as numpy and torch compute them. Knows arrays. Knows neither recipes nor Python.
// The same rules in NumPy: kernel/reference/tokens.py.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace cellmill {

// Counts how many of some counts are 1 to kTallied - 1, and writes those from kTallied on to `large`, in any order: returns how
// many these are. `large` has room for n + kTallySlack.
inline constexpr std::uint32_t kTallied = 12;
inline constexpr std::size_t kTallySlack = 16;
using Tally = std::size_t (*)(const std::uint32_t* counts, std::size_t n, std::uint32_t* sizes, std::uint32_t* large);

// The distinct counts of one cell, ascending, each with how many genes have it; zeros are left out.
class CountLadder {
public:
    struct Step {
        std::uint32_t count;
        std::uint32_t upto;  // Genes with this count or a smaller one.
    };

    explicit CountLadder(Tally tally) : tally_(tally) {}

    void measure(std::span<const std::uint32_t> counts) {
        steps_.clear();
        upto_ = 0;
        std::array<std::uint32_t, kTallied> sizes{};
        if (large_.size() < counts.size() + kTallySlack) large_.resize(counts.size() + kTallySlack);
        const std::size_t n_large = tally_(counts.data(), counts.size(), sizes.data(), large_.data());
        for (std::uint32_t count = 1; count < kTallied; ++count)
            if (sizes[count] > 0) step(count, sizes[count]);
        std::array<std::uint64_t, kSmall / 64> there{};
        std::size_t n_largest = 0;
        for (std::size_t i = 0; i < n_large; ++i) {
            const std::uint32_t count = large_[i];
            if (count < kSmall) {
                ++small_[count];
                there[count / 64] |= std::uint64_t{1} << (count % 64);
            } else {
                large_[n_largest++] = count;
            }
        }
        for (std::size_t word = 0; word < there.size(); ++word)
            for (std::uint64_t left = there[word]; left != 0; left &= left - 1) {
                const std::size_t count = word * 64 + static_cast<std::size_t>(std::countr_zero(left));
                step(static_cast<std::uint32_t>(count), std::exchange(small_[count], 0U));
            }
        std::sort(large_.begin(), large_.begin() + static_cast<std::ptrdiff_t>(n_largest));
        for (std::size_t i = 0; i < n_largest; ++i) {
            if (!steps_.empty() && steps_.back().count == large_[i])
                steps_.back().upto = ++upto_;
            else
                step(large_[i], 1);
        }
    }

    std::span<const Step> steps() const noexcept { return steps_; }
    std::size_t size() const noexcept { return upto_; }

private:
    static constexpr std::size_t kSmall = 512;

    void step(std::uint32_t count, std::uint32_t genes) {
        upto_ += genes;
        steps_.push_back({count, upto_});
    }

    Tally tally_;
    std::array<std::uint32_t, kSmall> small_{};
    std::vector<std::uint32_t> large_;
    std::vector<Step> steps_;
    std::uint32_t upto_ = 0;
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
    const std::size_t lower = static_cast<std::size_t>(v);  // v is 0 or more. std::floor is a call where there is no SSE4.
    const double b = static_cast<double>(lower);
    const Value low = at(lower);
    const Value high = at(std::min(lower + 1, n - 1));
    const Value d = static_cast<Value>(high - low);
    const double g = v - b;
    return g < 0.5 ? static_cast<double>(low) + static_cast<double>(d) * g : static_cast<double>(high) - static_cast<double>(d) * (1.0 - g);
}

template <class At>
float edge32(float level, std::size_t n, const At& at) {
    const float r = level * static_cast<float>(n - 1);
    const std::size_t down = static_cast<std::size_t>(r);  // r is 0 or more.
    const float b = static_cast<float>(down);
    const std::size_t lower = std::min(down, n - 1);
    const std::size_t upper = std::min(down + (b < r), n - 1);
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
    CountBins(Arithmetic arithmetic, std::size_t n_edges, Tally tally)
        : arithmetic_(arithmetic), levels64_(levels64(n_edges)), levels32_(levels32(n_edges)), edges_(n_edges), ladder_(tally) {}

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

}  // namespace cellmill
