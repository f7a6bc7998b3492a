// The loops of gene_loops.cpp with 64-byte vectors (AVX-512), bit for bit the same.
#include "gene_loops.hpp"

#include "vector_decoder.hpp"

#if CELLMILL_X86_VECTORS
#include <array>
#include <bit>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // In the intrinsics of GCC 12 themselves.
#endif
#include <immintrin.h>

namespace cellmill {
namespace {

WIDE inline __m512i at16(const void* from) noexcept { return _mm512_loadu_si512(from); }

WIDE inline __m512i mix(__m512i x) noexcept {
    __m512i z = _mm512_add_epi64(x, _mm512_set1_epi64(static_cast<long long>(kGamma)));
    z = _mm512_mullo_epi64(_mm512_xor_si512(z, _mm512_srli_epi64(z, 30)), _mm512_set1_epi64(static_cast<long long>(0xBF58476D1CE4E5B9ULL)));
    z = _mm512_mullo_epi64(_mm512_xor_si512(z, _mm512_srli_epi64(z, 27)), _mm512_set1_epi64(static_cast<long long>(0x94D049BB133111EBULL)));
    return _mm512_xor_si512(z, _mm512_srli_epi64(z, 31));
}

WIDE void number(std::uint64_t stream, const GeneOfColumn* genes, const std::int32_t* columns, std::size_t n, std::uint64_t* numbers,
                 std::int64_t* tokens) {
    const __m512i key = _mm512_set1_epi64(static_cast<long long>(stream));
    std::size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        // Loads of pairs, not the instruction that gathers: it is no faster.
        const auto at = [genes, columns, i](std::size_t k) WIDE { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(genes + columns[i + k])); };
        const auto four = [&at](std::size_t k) WIDE {
            const __m256i low = _mm256_set_m128i(at(k + 2), at(k));
            return _mm512_inserti64x4(_mm512_castsi256_si512(low), _mm256_set_m128i(at(k + 6), at(k + 4)), 1);
        };
        for (std::size_t k = i + kAhead; k < i + kAhead + 8 && i + kAhead + 8 <= n; ++k) __builtin_prefetch(genes + columns[k]);
        const __m512i even = four(0);
        const __m512i odd = four(1);
        _mm512_storeu_si512(numbers + i, mix(_mm512_xor_si512(_mm512_unpacklo_epi64(even, odd), key)));
        _mm512_storeu_si512(tokens + i, _mm512_unpackhi_epi64(even, odd));
    }
    plain::number(stream, genes, columns, n, numbers, tokens, i);
}

// Halves of eight numbers.
WIDE inline __m256i halves(const std::uint64_t* numbers, int half) noexcept {
    return _mm512_cvtepi64_epi32(_mm512_srl_epi64(at16(numbers), _mm_cvtsi32_si128(half)));
}

WIDE std::size_t near(const std::uint64_t* numbers, std::size_t n, int half, std::uint32_t low, std::uint32_t most, std::uint32_t* inside,
                      std::size_t* below) {
    const __m256i lows = _mm256_set1_epi32(static_cast<int>(low));
    const __m256i mosts = _mm256_set1_epi32(static_cast<int>(most));
    std::size_t found = 0;
    std::size_t less = 0;
    std::size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256i here = halves(numbers + i, half);
        less += static_cast<std::size_t>(std::popcount(static_cast<unsigned>(_mm256_cmplt_epu32_mask(here, lows))));
        const __mmask8 holds = _mm256_cmple_epu32_mask(_mm256_sub_epi32(here, lows), mosts);
        // To a register and from there: straight to memory it is slow on some processors.
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(inside + found), _mm256_maskz_compress_epi32(holds, here));
        found += static_cast<std::size_t>(std::popcount(static_cast<unsigned>(holds)));
    }
    *below = less;
    return plain::near(numbers, n, half, low, most, inside, below, i, found);
}

WIDE std::size_t keep(std::uint64_t* numbers, std::int64_t* tokens, const std::uint32_t* counts, std::size_t n, std::uint32_t rank,
                      std::uint32_t* to_counts) {
    const __m256i ranks = _mm256_set1_epi32(static_cast<int>(rank));
    std::size_t at = 0;
    std::size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m512i here = at16(numbers + i);
        const __mmask8 holds = _mm256_cmple_epu32_mask(_mm512_cvtepi64_epi32(_mm512_srli_epi64(here, 32)), ranks);
        const __m512i token = at16(tokens + i);
        const __m256i count = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(counts + i));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to_counts + at), _mm256_maskz_compress_epi32(holds, count));
        _mm512_storeu_si512(numbers + at, _mm512_maskz_compress_epi64(holds, here));  // All that it writes over was read.
        _mm512_storeu_si512(tokens + at, _mm512_maskz_compress_epi64(holds, token));
        at += static_cast<std::size_t>(std::popcount(static_cast<unsigned>(holds)));
    }
    return plain::keep(numbers, tokens, counts, n, rank, to_counts, i, at);
}

WIDE void hide(const std::uint64_t* numbers, std::size_t n, std::uint32_t rank, std::uint8_t* hidden) {
    const __m256i ranks = _mm256_set1_epi32(static_cast<int>(rank));
    std::size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __mmask8 holds = _mm256_cmple_epu32_mask(halves(numbers + i, 0), ranks);
        _mm_storel_epi64(reinterpret_cast<__m128i*>(hidden + i), _mm_maskz_set1_epi8(holds, 1));
    }
    plain::hide(numbers, n, rank, hidden, i);
}

WIDE void draw(const CountBins& bins, const std::uint64_t* numbers, const std::uint32_t* counts, std::size_t n, float zero, float* to) {
    const CountBins::Drawn* const table = bins.drawn();
    const __m128i most = _mm_set1_epi32(static_cast<int>(CountBins::kTable - 1));
    const __m256i gamma = _mm256_set1_epi64x(static_cast<long long>(kGamma));
    std::size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        const __m128i count = _mm_loadu_si128(reinterpret_cast<const __m128i*>(counts + i));
        if (_mm_cmpgt_epu32_mask(count, most) != 0) {  // A count beyond the table.
            for (std::size_t k = i; k < i + 4; ++k) to[k] = bins.draw(counts[k], to_uniform(number_to_bin(numbers[k])), zero);
            continue;
        }
        // Four rows of upto, width, least become these three of four counts.
        const auto row = [table, counts, i](std::size_t k) WIDE { return _mm256_load_pd(&table[counts[i + k]].upto); };
        const __m256d r0 = row(0), r1 = row(1), r2 = row(2), r3 = row(3);
        const __m256d even01 = _mm256_unpacklo_pd(r0, r1), even23 = _mm256_unpacklo_pd(r2, r3);
        const __m256d upto = _mm256_permute2f128_pd(even01, even23, 0x20);
        const __m256d least = _mm256_permute2f128_pd(even01, even23, 0x31);
        const __m256d width = _mm256_permute2f128_pd(_mm256_unpackhi_pd(r0, r1), _mm256_unpackhi_pd(r2, r3), 0x20);
        const __m256i number = _mm256_mullo_epi64(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(numbers + i)), gamma);
        const __m256d u = _mm256_mul_pd(_mm256_cvtepu64_pd(_mm256_srli_epi64(number, 11)), _mm256_set1_pd(0x1p-53));
        const __m256d bin = _mm256_max_pd(_mm256_ceil_pd(_mm256_sub_pd(upto, _mm256_mul_pd(u, width))), least);
        _mm_storeu_ps(to + i, _mm_mask_blend_ps(_mm_testn_epi32_mask(count, count), _mm256_cvtpd_ps(bin), _mm_set1_ps(zero)));
    }
    plain::draw(bins, numbers, counts, n, zero, to, i);
}

// Bytes that are equal to 1, to 2 and so on, 64 at once.
WIDE std::size_t tally(const std::uint32_t* counts, std::size_t n, std::uint32_t* sizes, std::uint32_t* large) {
    const __m512i least_large = _mm512_set1_epi32(static_cast<int>(kTallied));
    std::array<std::uint32_t, kTallied> found{};
    std::size_t n_large = 0;
    std::size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        __m128i parts[4];
        for (std::size_t k = 0; k < 4; ++k) {
            const __m512i here = at16(counts + i + 16 * k);
            const __mmask16 is_large = _mm512_cmpge_epu32_mask(here, least_large);
            _mm512_storeu_si512(large + n_large, _mm512_maskz_compress_epi32(is_large, here));
            n_large += static_cast<std::size_t>(std::popcount(static_cast<unsigned>(is_large)));
            parts[k] = _mm512_cvtusepi32_epi8(here);
        }
        const __m512i bytes = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_set_m128i(parts[1], parts[0])), _mm256_set_m128i(parts[3], parts[2]), 1);
        for (std::uint32_t count = 1; count < kTallied; ++count) {
            const __mmask64 equal = _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(static_cast<char>(count)));
            found[count] += static_cast<std::uint32_t>(std::popcount(static_cast<std::uint64_t>(equal)));
        }
    }
    for (std::uint32_t count = 1; count < kTallied; ++count) sizes[count] += found[count];
    return plain::tally(counts, n, sizes, large, i, n_large);
}

}  // namespace

const GeneLoops* avx512_gene_loops() noexcept {
    static constexpr GeneLoops wide{number, near, keep, hide, draw, tally};
    static const bool here = has_avx512();
    return here ? &wide : nullptr;
}

}  // namespace cellmill

#else

namespace cellmill {

const GeneLoops* avx512_gene_loops() noexcept { return nullptr; }

}  // namespace cellmill

#endif
