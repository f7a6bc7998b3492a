// The loops of gene_loops.cpp with 32-byte vectors (AVX2), bit for bit the same.
#include "gene_loops.hpp"

#include "vector_decoder.hpp"

#if CELLMILL_X86_VECTORS
#include <array>
#include <bit>
#include <immintrin.h>

namespace cellmill {
namespace {

// For each mask of 8 the places of its bits, and for each mask of 4 the halves of the numbers at its bits.
struct Places {
    std::array<std::uint64_t, 256> of8{};
    std::array<std::array<std::uint32_t, 8>, 16> of4{};

    constexpr Places() {
        for (unsigned mask = 0; mask < 256; ++mask) {
            int at = 0;
            for (unsigned bit = 0; bit < 8; ++bit)
                if (mask >> bit & 1) of8[mask] |= std::uint64_t{bit} << (8 * at++);
        }
        for (unsigned mask = 0; mask < 16; ++mask) {
            std::size_t at = 0;
            for (unsigned bit = 0; bit < 4; ++bit) {
                if (!(mask >> bit & 1)) continue;
                of4[mask][at++] = 2 * bit;
                of4[mask][at++] = 2 * bit + 1;
            }
        }
    }
};
constexpr Places kPlaces;

AVX2 inline __m256i at8(const void* from) noexcept { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
AVX2 inline void put8(void* to, __m256i x) noexcept { _mm256_storeu_si256(static_cast<__m256i*>(to), x); }

AVX2 inline __m256i times(__m256i x, std::uint64_t factor) noexcept {
    const __m256i low = _mm256_set1_epi64x(static_cast<long long>(factor & 0xFFFFFFFFU));
    const __m256i high = _mm256_set1_epi64x(static_cast<long long>(factor >> 32));
    const __m256i cross = _mm256_add_epi64(_mm256_mul_epu32(_mm256_srli_epi64(x, 32), low), _mm256_mul_epu32(x, high));
    return _mm256_add_epi64(_mm256_mul_epu32(x, low), _mm256_slli_epi64(cross, 32));
}

AVX2 inline __m256i mix(__m256i x) noexcept {
    __m256i z = _mm256_add_epi64(x, _mm256_set1_epi64x(static_cast<long long>(kGamma)));
    z = times(_mm256_xor_si256(z, _mm256_srli_epi64(z, 30)), 0xBF58476D1CE4E5B9ULL);
    z = times(_mm256_xor_si256(z, _mm256_srli_epi64(z, 27)), 0x94D049BB133111EBULL);
    return _mm256_xor_si256(z, _mm256_srli_epi64(z, 31));
}

AVX2 void number(std::uint64_t stream, const GeneOfColumn* genes, const std::int32_t* columns, std::size_t n, std::uint64_t* numbers,
                 std::int64_t* tokens) {
    const __m256i key = _mm256_set1_epi64x(static_cast<long long>(stream));
    std::size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        const auto at = [genes, columns, i](std::size_t k) AVX2 { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(genes + columns[i + k])); };
        for (std::size_t k = i + kAhead; k < i + kAhead + 4 && i + kAhead + 4 <= n; ++k) __builtin_prefetch(genes + columns[k]);
        const __m256i even = _mm256_set_m128i(at(2), at(0));
        const __m256i odd = _mm256_set_m128i(at(3), at(1));
        put8(numbers + i, mix(_mm256_xor_si256(_mm256_unpacklo_epi64(even, odd), key)));
        put8(tokens + i, _mm256_unpackhi_epi64(even, odd));
    }
    plain::number(stream, genes, columns, n, numbers, tokens, i);
}

// Halves of eight numbers, in another order than theirs: 0 1 4 5 2 3 6 7.
template <int half>
AVX2 inline __m256i halves(const std::uint64_t* numbers) noexcept {
    const __m256 first = _mm256_castsi256_ps(at8(numbers));
    const __m256 second = _mm256_castsi256_ps(at8(numbers + 4));
    return _mm256_castps_si256(_mm256_shuffle_ps(first, second, half == 32 ? 0xDD : 0x88));
}

template <int half>
AVX2 inline unsigned at_most(const std::uint64_t* numbers, __m256i rank) noexcept {
    const __m256i here = _mm256_permute4x64_epi64(halves<half>(numbers), 0xD8);
    const __m256i holds = _mm256_cmpeq_epi32(_mm256_min_epu32(here, rank), here);
    return static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(holds)));
}

AVX2 inline __m256i placed(unsigned mask) noexcept {
    return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(kPlaces.of8[mask])));
}

template <int half>
AVX2 std::size_t near_half(const std::uint64_t* numbers, std::size_t n, std::uint32_t low, std::uint32_t most, std::uint32_t* inside,
                           std::size_t* below) {
    const __m256i lows = _mm256_set1_epi32(static_cast<int>(low));
    const __m256i mosts = _mm256_set1_epi32(static_cast<int>(most));
    std::size_t found = 0;
    std::size_t less = 0;
    std::size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256i here = halves<half>(numbers + i);
        const __m256i above = _mm256_cmpeq_epi32(_mm256_max_epu32(here, lows), here);
        less += 8 - static_cast<std::size_t>(std::popcount(static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(above)))));
        const __m256i past = _mm256_sub_epi32(here, lows);
        const __m256i holds = _mm256_cmpeq_epi32(_mm256_min_epu32(past, mosts), past);
        const unsigned mask = static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(holds)));
        put8(inside + found, _mm256_permutevar8x32_epi32(here, placed(mask)));
        found += static_cast<std::size_t>(std::popcount(mask));
    }
    *below = less;
    return plain::near(numbers, n, half, low, most, inside, below, i, found);
}

AVX2 std::size_t near(const std::uint64_t* numbers, std::size_t n, int half, std::uint32_t low, std::uint32_t most, std::uint32_t* inside,
                      std::size_t* below) {
    return half == 32 ? near_half<32>(numbers, n, low, most, inside, below) : near_half<0>(numbers, n, low, most, inside, below);
}

AVX2 std::size_t keep(std::uint64_t* numbers, std::int64_t* tokens, const std::uint32_t* counts, std::size_t n, std::uint32_t rank,
                      std::uint32_t* to_counts) {
    const __m256i ranks = _mm256_set1_epi32(static_cast<int>(rank));
    std::size_t at = 0;
    std::size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const unsigned mask = at_most<32>(numbers + i, ranks);
        const __m256i first = at8(numbers + i);  // All are read before any is written over.
        const __m256i second = at8(numbers + i + 4);
        const __m256i first_token = at8(tokens + i);
        const __m256i second_token = at8(tokens + i + 4);
        const __m256i places = at8(kPlaces.of4[mask & 15].data());
        const __m256i more_places = at8(kPlaces.of4[mask >> 4].data());
        const std::size_t next = at + static_cast<std::size_t>(std::popcount(mask & 15));
        put8(to_counts + at, _mm256_permutevar8x32_epi32(at8(counts + i), placed(mask)));
        put8(numbers + at, _mm256_permutevar8x32_epi32(first, places));
        put8(numbers + next, _mm256_permutevar8x32_epi32(second, more_places));
        put8(tokens + at, _mm256_permutevar8x32_epi32(first_token, places));
        put8(tokens + next, _mm256_permutevar8x32_epi32(second_token, more_places));
        at += static_cast<std::size_t>(std::popcount(mask));
    }
    return plain::keep(numbers, tokens, counts, n, rank, to_counts, i, at);
}

AVX2 void hide(const std::uint64_t* numbers, std::size_t n, std::uint32_t rank, std::uint8_t* hidden) {
    const __m256i ranks = _mm256_set1_epi32(static_cast<int>(rank));
    std::size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const std::uint64_t bytes = _pdep_u64(at_most<0>(numbers + i, ranks), 0x0101010101010101ULL);
        std::copy_n(reinterpret_cast<const std::uint8_t*>(&bytes), 8, hidden + i);
    }
    plain::hide(numbers, n, rank, hidden, i);
}

// The upper 53 bits as a number in [0, 1): exact, in two parts.
AVX2 inline __m256d uniform(__m256i number) noexcept {
    const __m256i x = _mm256_srli_epi64(number, 11);
    const __m256i high = _mm256_or_si256(_mm256_srli_epi64(x, 32), _mm256_set1_epi64x(0x4530000000000000LL));  // 2^84 + high * 2^32
    const __m256i low = _mm256_blend_epi32(x, _mm256_set1_epi64x(0x4330000000000000LL), 0xAA);                 // 2^52 + low
    const __m256d upper = _mm256_sub_pd(_mm256_castsi256_pd(high), _mm256_set1_pd(0x1p84 + 0x1p52));
    return _mm256_mul_pd(_mm256_add_pd(upper, _mm256_castsi256_pd(low)), _mm256_set1_pd(0x1p-53));
}

AVX2 void draw(const CountBins& bins, const std::uint64_t* numbers, const std::uint32_t* counts, std::size_t n, float zero, float* to) {
    const CountBins::Drawn* const table = bins.drawn();
    const __m128i most = _mm_set1_epi32(static_cast<int>(CountBins::kTable - 1));
    std::size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        const __m128i count = _mm_loadu_si128(reinterpret_cast<const __m128i*>(counts + i));
        if (_mm_movemask_epi8(_mm_cmpeq_epi32(_mm_min_epu32(count, most), count)) != 0xFFFF) {  // A count beyond the table.
            for (std::size_t k = i; k < i + 4; ++k) to[k] = bins.draw(counts[k], to_uniform(number_to_bin(numbers[k])), zero);
            continue;
        }
        // Four rows of upto, width, least become these three of four counts.
        const auto row = [table, counts, i](std::size_t k) AVX2 { return _mm256_load_pd(&table[counts[i + k]].upto); };
        const __m256d r0 = row(0), r1 = row(1), r2 = row(2), r3 = row(3);
        const __m256d even01 = _mm256_unpacklo_pd(r0, r1), even23 = _mm256_unpacklo_pd(r2, r3);
        const __m256d upto = _mm256_permute2f128_pd(even01, even23, 0x20);
        const __m256d least = _mm256_permute2f128_pd(even01, even23, 0x31);
        const __m256d width = _mm256_permute2f128_pd(_mm256_unpackhi_pd(r0, r1), _mm256_unpackhi_pd(r2, r3), 0x20);
        const __m256d u = uniform(times(at8(numbers + i), kGamma));
        const __m256d bin = _mm256_max_pd(_mm256_ceil_pd(_mm256_sub_pd(upto, _mm256_mul_pd(u, width))), least);
        const __m128 none = _mm_castsi128_ps(_mm_cmpeq_epi32(count, _mm_setzero_si128()));
        _mm_storeu_ps(to + i, _mm_blendv_ps(_mm256_cvtpd_ps(bin), _mm_set1_ps(zero), none));
    }
    plain::draw(bins, numbers, counts, n, zero, to, i);
}

// Counts of 32 at once: bytes that are equal to 1, to 2 and so on, of at most 255 rounds, so that no byte overflows.
AVX2 std::size_t tally(const std::uint32_t* counts, std::size_t n, std::uint32_t* sizes, std::uint32_t* large) {
    constexpr std::size_t most_at_once = 255 * 32;
    const __m256i most = _mm256_set1_epi32(255);
    const __m256i least_large = _mm256_set1_epi32(static_cast<int>(kTallied));
    std::size_t n_large = 0;
    std::size_t i = 0;
    while (i + 32 <= n) {
        __m256i equal[kTallied];
        for (__m256i& one : equal) one = _mm256_setzero_si256();
        for (const std::size_t end = std::min(n, i + most_at_once); i + 32 <= end; i += 32) {
            const auto four = [counts, i, most](std::size_t k) AVX2 { return _mm256_min_epu32(at8(counts + i + 8 * k), most); };
            const __m256i low = _mm256_packus_epi32(four(0), four(1));
            const __m256i bytes = _mm256_packus_epi16(low, _mm256_packus_epi32(four(2), four(3)));
            for (std::uint32_t count = 1; count < kTallied; ++count)
                equal[count] = _mm256_sub_epi8(equal[count], _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(static_cast<char>(count))));
            for (std::size_t k = 0; k < 4; ++k) {  // Without branches: in most of 32 counts one is large.
                const __m256i here = at8(counts + i + 8 * k);
                const __m256i is_large = _mm256_cmpeq_epi32(_mm256_max_epu32(here, least_large), here);
                const auto mask = static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(is_large)));
                put8(large + n_large, _mm256_permutevar8x32_epi32(here, placed(mask)));
                n_large += static_cast<std::size_t>(std::popcount(mask));
            }
        }
        for (std::uint32_t count = 1; count < kTallied; ++count) {
            const __m256i sums = _mm256_sad_epu8(equal[count], _mm256_setzero_si256());
            alignas(32) std::array<std::uint64_t, 4> parts;
            put8(parts.data(), sums);
            sizes[count] += static_cast<std::uint32_t>(parts[0] + parts[1] + parts[2] + parts[3]);
        }
    }
    return plain::tally(counts, n, sizes, large, i, n_large);
}

}  // namespace

const GeneLoops* avx2_gene_loops() noexcept {
    static constexpr GeneLoops wide{number, near, keep, hide, draw, tally};
    static const bool here = has_avx2();
    return here ? &wide : nullptr;
}

}  // namespace cellmill

#else

namespace cellmill {

const GeneLoops* avx2_gene_loops() noexcept { return nullptr; }

}  // namespace cellmill

#endif
