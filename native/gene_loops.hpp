// The loops over the genes of one cell that making tokens spends its time in, plainly and with vectors of 32 and 64 bytes; all give
// the same. Knows arrays. Knows neither recipes nor Python.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "count_bins.hpp"
#include "tokens.hpp"

namespace cellmill {

// What is looked up of a column, in one place: the tables of an axis are larger than the nearest caches.
struct GeneOfColumn {
    std::uint64_t mixed;  // mix64 of the token.
    std::int64_t token;
};

struct GeneLoops {
    // numbers[i]: mix64(stream ^ mixed of columns[i]); tokens[i]: its token.
    void (*number)(std::uint64_t stream, const GeneOfColumn* genes, const std::int32_t* columns, std::size_t n,
                   std::uint64_t* numbers, std::int64_t* tokens);

    // Writes the halves (upper: 32, lower: 0) from low to low + most, counts those below, and returns how many it wrote.
    // `inside` has room for n + kSlack.
    std::size_t (*near)(const std::uint64_t* numbers, std::size_t n, int half, std::uint32_t low, std::uint32_t most,
                        std::uint32_t* inside, std::size_t* below);

    // Keeps the genes whose upper half is at most `rank`, numbers and tokens where they lie; the room for counts is n + kSlack.
    std::size_t (*keep)(std::uint64_t* numbers, std::int64_t* tokens, const std::uint32_t* counts, std::size_t n,
                        std::uint32_t rank, std::uint32_t* to_counts);

    // hidden[i]: whether the lower half is at most `rank`.
    void (*hide)(const std::uint64_t* numbers, std::size_t n, std::uint32_t rank, std::uint8_t* hidden);

    // The bin of each count, drawn by its number; `zero` for a count of 0.
    void (*draw)(const CountBins& bins, const std::uint64_t* numbers, const std::uint32_t* counts, std::size_t n, float zero,
                 float* to);

    Tally tally;
};

inline constexpr std::size_t kSlack = 8;
inline constexpr std::size_t kAhead = 32;  // Entries between the one that is computed and the one that is fetched.

// The loops plainly, from entry i on: what wide ones leave over, and all of it where there are no vectors.
namespace plain {

inline void number(std::uint64_t stream, const GeneOfColumn* genes, const std::int32_t* columns, std::size_t n, std::uint64_t* numbers,
                   std::int64_t* tokens, std::size_t i = 0) {
    for (; i < n; ++i) {
        const GeneOfColumn& gene = genes[columns[i]];
        numbers[i] = mix64(stream ^ gene.mixed);
        tokens[i] = gene.token;
    }
}

// `found` of them are in `inside` already, `below` has been counted.
inline std::size_t near(const std::uint64_t* numbers, std::size_t n, int half, std::uint32_t low, std::uint32_t most, std::uint32_t* inside,
                        std::size_t* below, std::size_t i, std::size_t found) {
    std::size_t less = *below;
    for (; i < n; ++i) {  // Without branches: which way they go is random.
        const std::uint32_t at = static_cast<std::uint32_t>(numbers[i] >> half);
        inside[found] = at;
        less += at < low;
        found += at - low <= most;
    }
    *below = less;
    return found;
}

// `at` are kept already.
inline std::size_t keep(std::uint64_t* numbers, std::int64_t* tokens, const std::uint32_t* counts, std::size_t n, std::uint32_t rank,
                        std::uint32_t* to_counts, std::size_t i = 0, std::size_t at = 0) {
    for (; i < n; ++i) {
        const std::uint64_t number = numbers[i];
        tokens[at] = tokens[i];
        to_counts[at] = counts[i];
        numbers[at] = number;
        at += static_cast<std::uint32_t>(number >> 32) <= rank;
    }
    return at;
}

inline void hide(const std::uint64_t* numbers, std::size_t n, std::uint32_t rank, std::uint8_t* hidden, std::size_t i = 0) {
    for (; i < n; ++i) hidden[i] = static_cast<std::uint32_t>(numbers[i]) <= rank;
}

inline void draw(const CountBins& bins, const std::uint64_t* numbers, const std::uint32_t* counts, std::size_t n, float zero, float* to,
                 std::size_t i = 0) {
    for (; i < n; ++i) to[i] = bins.draw(counts[i], to_uniform(number_to_bin(numbers[i])), zero);
}

// `n_large` are written already.
inline std::size_t tally(const std::uint32_t* counts, std::size_t n, std::uint32_t* sizes, std::uint32_t* large, std::size_t i = 0,
                         std::size_t n_large = 0) {
    for (; i < n; ++i) {
        const std::uint32_t count = counts[i];
        if (count < kTallied)
            ++sizes[count];
        else
            large[n_large++] = count;
    }
    return n_large;
}

}  // namespace plain

// Those for this processor, or less where `limit_vectors` says so.
const GeneLoops& gene_loops() noexcept;

// Null where this processor, or this build, has no such vectors.
const GeneLoops* avx2_gene_loops() noexcept;
const GeneLoops* avx512_gene_loops() noexcept;

// Finds the k-th smallest of halves of numbers that are spread evenly: one pass finds the few next to where it must be.
class HalfThreshold {
public:
    struct Found {
        std::uint32_t value;
        std::size_t equal;  // Of those with this value so many belong to the k smallest: the first ones.
        bool all_equal;     // They are all that have it.
    };

    explicit HalfThreshold(const GeneLoops& loops) : loops_(loops) {}

    // 0 < k < n. Half 32 is the upper one, 0 the lower one.
    Found find(const std::uint64_t* numbers, std::size_t n, std::size_t k, int half) {
        if (inside_.size() < n + kSlack) inside_.resize(n + kSlack);
        std::size_t below = 0;
        std::size_t found = 0;
        for (const double sigmas : {2.5, 8.0}) {
            found = find_near(numbers, n, k, half, sigmas, below);
            if (below < k && k <= below + found) break;
        }
        if (below >= k || k > below + found) {  // Numbers that are not spread evenly.
            for (std::size_t i = 0; i < n; ++i) inside_[i] = static_cast<std::uint32_t>(numbers[i] >> half);
            below = 0;
            found = n;
        } else if (found > kFew) {
            narrow(k, found, below);
        }
        const auto first = inside_.begin();
        const auto last = first + static_cast<std::ptrdiff_t>(found);
        const auto kth = first + static_cast<std::ptrdiff_t>(k - below - 1);
        std::nth_element(first, kth, last);
        const std::uint32_t value = *kth;
        const std::size_t less = below + static_cast<std::size_t>(std::count_if(first, kth, [value](std::uint32_t x) { return x < value; }));
        const std::size_t equal = static_cast<std::size_t>(std::count(first, last, value));
        return {value, k - less, equal == k - less};
    }

private:
    static constexpr std::size_t kFew = 40;

    // Leaves fewer of the numbers in `inside_`, by where the wanted one must be among those that are there.
    void narrow(std::size_t k, std::size_t& found, std::size_t& below) {
        const double all = static_cast<double>(found);
        const double share = static_cast<double>(k - below) / all;
        const double wide = (3.0 * std::sqrt(all * share * (1.0 - share)) + 2.0) / all;
        const auto least = static_cast<std::uint32_t>(low_ + most_ * std::max(0.0, share - wide));
        const auto upto = static_cast<std::uint32_t>(low_ + most_ * std::min(1.0, share + wide));
        if (fewer_.size() < found) fewer_.resize(found + kSlack);
        std::size_t left = 0;
        std::size_t less = 0;
        for (std::size_t i = 0; i < found; ++i) {
            const std::uint32_t at = inside_[i];
            fewer_[left] = at;
            less += at < least;
            left += at - least <= upto - least;
        }
        if (below + less >= k || k > below + less + left) return;
        inside_.swap(fewer_);
        if (inside_.size() < fewer_.size()) inside_.resize(fewer_.size());
        below += less;
        found = left;
    }

    std::size_t find_near(const std::uint64_t* numbers, std::size_t n, std::size_t k, int half, double sigmas, std::size_t& below) {
        const double all = static_cast<double>(n);
        const double share = static_cast<double>(k) / all;
        const double wide = (sigmas * std::sqrt(all * share * (1.0 - share)) + 2.0) / all;
        const double low = std::floor(std::max(0.0, share - wide) * 0x1p32);
        const double high = std::min(0x1p32 - 1.0, (share + wide) * 0x1p32);
        low_ = low;
        most_ = high - low;
        return loops_.near(numbers, n, half, static_cast<std::uint32_t>(low), static_cast<std::uint32_t>(high - low), inside_.data(), &below);
    }

    const GeneLoops& loops_;
    std::vector<std::uint32_t> inside_;
    std::vector<std::uint32_t> fewer_;
    double low_ = 0.0;  // Of the numbers in `inside_`, and how far up they go.
    double most_ = 0.0;
};

}  // namespace cellmill
