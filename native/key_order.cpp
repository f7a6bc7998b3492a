#include "key_order.hpp"

#include <algorithm>
#include <bit>

#include "vector_decoder.hpp"

namespace cellmill {
namespace {

struct Work {
    const std::uint64_t* bits;
    std::uint32_t* before;
    const std::uint16_t* keys;
    std::uint32_t* ordered;
    std::size_t n;
    std::size_t n_words;
};

// The rank of each key among those that are there is where its entry goes. The last entry first, so that of a key that several
// have the first one stays; what has no key goes behind all that have one.
inline __attribute__((always_inline)) void put_in_order(const Work& work) {
    std::uint32_t upto = 0;
    for (std::size_t word = 0; word < work.n_words; ++word) {
        work.before[word] = upto;
        upto += static_cast<std::uint32_t>(std::popcount(work.bits[word]));
    }
    for (std::size_t i = work.n; i-- > 0;) {
        const std::size_t word = work.keys[i] / 64;
        const std::uint64_t below = work.bits[word] & ((std::uint64_t{1} << (work.keys[i] % 64)) - 1);
        work.ordered[work.before[word] + static_cast<std::uint32_t>(std::popcount(below))] = static_cast<std::uint32_t>(i);
    }
}

void put_plainly(const Work& work) { put_in_order(work); }
#if CELLMILL_X86_VECTORS
AVX2 void put_counting(const Work& work) { put_in_order(work); }  // With the instruction that counts bits.
#else
constexpr auto put_counting = put_plainly;
#endif

}  // namespace

bool KeyOrder::order(const KeyedColumn* table, const std::int32_t* columns, const std::uint32_t* counts, std::size_t n,
                     double* values, std::int64_t* tokens) {
    constexpr std::size_t ahead = 16;
    if (ordered_.size() < n + 1) {
        keys_.resize(n + 1);
        ordered_.resize(n + 1);
        rest_.resize(n + 1);
    }
    // In names of their own, for the compiler cannot know that what is written is none of it.
    std::uint64_t* const bits = bits_.data();
    std::uint16_t* const keys = keys_.data();
    std::uint32_t* const rest = rest_.data();
    std::size_t n_rest = 0;
    for (std::size_t i = 0; i < n; ++i) {
        if (i + ahead < n) __builtin_prefetch(table + columns[i + ahead]);
        const KeyedColumn& column = table[columns[i]];
        const std::uint32_t count = counts[i] - 1;
        const std::uint16_t key = count < KeyedColumn::kCounts ? column.keys[count] : KeyedColumn::kNoKey;
        values[i] = static_cast<double>(counts[i]) / column.divisor;
        tokens[i] = column.token;
        keys[i] = key;
        const std::uint64_t bit = std::uint64_t{1} << (key % 64);
        const std::uint64_t word = bits[key / 64];
        bits[key / 64] = word | bit;
        if (word & bit) [[unlikely]] rest[n_rest++] = static_cast<std::uint32_t>(i);
    }
    bits[KeyedColumn::kNoKey / 64] &= ~(std::uint64_t{1} << (KeyedColumn::kNoKey % 64));
    n_ = n - n_rest;
    n_rest_ = n_rest;
    const bool few = n_rest <= n / kShareOfRest + 8;
    if (few) {
        const Work work{bits, before_.data(), keys, ordered_.data(), n, kWords};
        vectors_in_use() == Vectors::plain || !has_avx2() ? put_plainly(work) : put_counting(work);
    }
    std::fill(bits_.begin(), bits_.end(), 0);
    bits[KeyedColumn::kNoKey / 64] = std::uint64_t{1} << (KeyedColumn::kNoKey % 64);  // As if one had it: all that do are the rest.
    return few;
}

}  // namespace cellmill
