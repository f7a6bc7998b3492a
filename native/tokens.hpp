// What every recipe of tokens needs: numbers keyed by cell and gene, the k smallest of them.
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

class EncodedCells;

// Cells of one batch over the columns of its axis; columns ascend within a cell.
struct TokenCells {
    std::span<const std::int64_t> indptr;
    std::span<const std::int32_t> columns;
    std::span<const std::uint32_t> counts;
    std::span<const std::int64_t> token_of;  // Of each column.
    std::span<const std::uint64_t> keys;     // Of each cell.
    EncodedCells* encoded = nullptr;         // Where columns and counts come from, which are empty then.

    std::size_t entries() const noexcept { return static_cast<std::size_t>(indptr.back()); }
    std::size_t size() const noexcept { return keys.size(); }
    std::size_t begin(std::size_t cell) const noexcept { return static_cast<std::size_t>(indptr[cell]); }
    std::size_t nnz(std::size_t cell) const noexcept { return static_cast<std::size_t>(indptr[cell + 1] - indptr[cell]); }

    // Throws std::invalid_argument for arrays that contradict each other, so that nothing is read out of bounds later.
    void check() const {
        bool sound = indptr.size() == keys.size() + 1 && indptr.front() == 0 &&
                     (encoded != nullptr || indptr.back() == static_cast<std::int64_t>(columns.size())) && columns.size() == counts.size();
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

// Work that pays for starting a thread, in nonzeros: one takes some 20 ns.
inline constexpr std::uint64_t kLeastTokenised = 20'000;
inline constexpr std::size_t kTokenPiece = 16;

}  // namespace cellmill
