// What a block is read with where there are 32-byte vectors: low bits, unary sections, places of genes, counts. Nearly all
// blocks are unary sections; the places of their ones, and the sums of gaps within a block, fit 16 bits, so that one
// vector holds 16 of them. For decode_avx2.cpp alone.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "block_headers.hpp"
#include "frames.hpp"
#include "packing.hpp"
#include "vector_decoder.hpp"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // In the intrinsics of GCC 12 themselves.
#endif
#include <immintrin.h>

// Marked function by function, not by compiler flags: a template of the standard library that is compiled under such
// flags could be the copy that the linker keeps for everybody.
#define AVX2_INLINE __attribute__((target("avx2,bmi,bmi2,popcnt"), always_inline)) inline

namespace cellmill {
namespace {

constexpr std::uint32_t kNarrowWidth = 8;  // Low bits of at most so many are unpacked to 16 bits.

// For each byte the places of its ones.
struct OnesOfByte {
    alignas(64) std::uint8_t place[256][8];
};

constexpr OnesOfByte kOnes = [] {
    OnesOfByte table{};
    for (unsigned byte = 0; byte < 256; ++byte) {
        unsigned found = 0;
        for (unsigned bit = 0; bit < 8; ++bit)
            if (byte >> bit & 1) table.place[byte][found++] = static_cast<std::uint8_t>(bit);
    }
    return table;
}();

// For each width what value j of a block loses, j * (2^width - 1), since the j ones before it are no zeros.
struct OnesBefore {
    alignas(64) std::uint16_t less[kNarrowWidth + 1][kBlock];
};

constexpr OnesBefore kOnesBefore = [] {
    OnesBefore table{};
    for (unsigned width = 0; width <= kNarrowWidth; ++width)
        for (unsigned j = 0; j < kBlock; ++j) table.less[width][j] = static_cast<std::uint16_t>(j * ((1U << width) - 1));
    return table;
}();

AVX2_INLINE __m256i load(const void* at) noexcept { return _mm256_loadu_si256(static_cast<const __m256i*>(at)); }
AVX2_INLINE __m128i load_half(const void* at) noexcept { return _mm_loadu_si128(static_cast<const __m128i*>(at)); }
AVX2_INLINE void store(void* at, __m256i value) noexcept { _mm256_storeu_si256(static_cast<__m256i*>(at), value); }

// ---- low bits ------------------------------------------------------------------------------------------------------

// The low bits of the four values of step First in the lower lane, of step Second in the upper one, 32 bits each.
template <int Width, int First, int Second>
AVX2_INLINE __m256i two_steps(const std::uint8_t* from) noexcept {
    constexpr int row0 = First * Width / 32, shift0 = First * Width % 32;
    constexpr int row1 = Second * Width / 32, shift1 = Second * Width % 32;
    const __m256i shifts = _mm256_setr_epi32(shift0, shift0, shift0, shift0, shift1, shift1, shift1, shift1);
    const __m256i here = _mm256_inserti128_si256(_mm256_castsi128_si256(load_half(from + 16 * row0)), load_half(from + 16 * row1), 1);
    __m256i low = _mm256_srlv_epi32(here, shifts);
    if constexpr (shift0 + Width > 32 || shift1 + Width > 32) {
        const __m256i next = _mm256_inserti128_si256(_mm256_castsi128_si256(load_half(from + 16 * (row0 + 1))),
                                                     load_half(from + 16 * (row1 + 1)), 1);
        low = _mm256_or_si256(low, _mm256_sllv_epi32(next, _mm256_sub_epi32(_mm256_set1_epi32(32), shifts)));
    }
    return _mm256_and_si256(low, _mm256_set1_epi32((1 << Width) - 1));
}

// The low bits of values 16 * Part to 16 * Part + 15. Packing puts the lanes of both side by side: steps in this order
// come out in the order of the values.
template <int Width, int Part>
AVX2_INLINE __m256i low_part(const std::uint8_t* from) noexcept {
    return _mm256_packus_epi32(two_steps<Width, 4 * Part, 4 * Part + 2>(from), two_steps<Width, 4 * Part + 1, 4 * Part + 3>(from));
}

template <int Width, int Part = 0>
AVX2_INLINE void unpack_parts(const std::uint8_t* from, std::uint16_t* to) noexcept {
    if constexpr (Part < 8) {
        store(to + 16 * Part, low_part<Width, Part>(from));
        unpack_parts<Width, Part + 1>(from, to);
    }
}

AVX2 void unpack_full(const std::uint8_t* from, std::uint32_t width, std::uint16_t* to) noexcept {
    switch (width) {
        case 1: return unpack_parts<1>(from, to);
        case 2: return unpack_parts<2>(from, to);
        case 3: return unpack_parts<3>(from, to);
        case 4: return unpack_parts<4>(from, to);
        case 5: return unpack_parts<5>(from, to);
        case 6: return unpack_parts<6>(from, to);
        case 7: return unpack_parts<7>(from, to);
        default: return unpack_parts<8>(from, to);
    }
}

// Low bits, 1 to 8 each, of a block of `size` values. Room for `size` rounded up to 8 is needed.
AVX2_INLINE void unpack_narrow(const std::uint8_t* from, std::uint32_t size, std::uint32_t width, std::uint16_t* to) noexcept {
    if (size == kBlock) {
        unpack_full(from, width, to);
        return;
    }
    const std::uint64_t field = 0x0101010101010101ULL * ((1U << width) - 1);
    for (std::uint32_t j = 0; j < size; j += 8, from += width) {  // Eight values are `width` whole bytes.
        const std::uint64_t bytes = _pdep_u64(load_u64(from), field);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to + j), _mm_cvtepu8_epi16(_mm_cvtsi64_si128(static_cast<long long>(bytes))));
    }
}

inline void unpack_any(const std::uint8_t* from, std::uint32_t size, std::uint32_t width, std::uint32_t* to) noexcept {
    if (size == kBlock)
        kUnpackBlock[width](from, to);
    else
        unpack_short(from, size, width, to);
}

// ---- unary sections ------------------------------------------------------------------------------------------------

AVX2_INLINE std::uint32_t ones_in(std::uint64_t word, std::uint32_t bytes) noexcept {
    return static_cast<std::uint32_t>(_mm_popcnt_u64(_bzhi_u64(word, 8 * bytes)));
}

// Writes the places of the ones of a section, and returns whether there is one for each value and none idle at the end.
// Whole words are read and written: what lies behind the section is not counted.
AVX2_INLINE bool expand_ones(const std::uint8_t* section, std::uint32_t bytes, std::uint32_t size, std::uint16_t* ones) noexcept {
    const __m128i eight = _mm_set1_epi16(8);
    __m128i base = _mm_setzero_si128();
    std::uint16_t* to = ones;
    std::uint32_t at = 0;
    do {
#pragma GCC unroll 8
        for (std::uint32_t k = 0; k < 8; ++k) {
            const std::uint64_t byte = section[at + k];
            const __m128i places = _mm_cvtepu8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(kOnes.place[byte])));
            _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm_add_epi16(places, base));
            to += _mm_popcnt_u64(byte);
            base = _mm_add_epi16(base, eight);
        }
        at += 8;
    } while (at < bytes);
    const std::uint64_t last = load_u64(section + at - 8);
    const std::ptrdiff_t behind = _mm_popcnt_u64(last) - ones_in(last, bytes + 8 - at);
    return to - ones - behind == static_cast<std::ptrdiff_t>(size) && section[bytes - 1] != 0;
}

// Whether what a unary section of gaps adds up to, its low bits included, fits 16 bits.
inline bool fits_16_bits(const BlockHeader& block, std::uint32_t size) noexcept {
    return block.width <= kNarrowWidth &&
           ((8 * block.unary_bytes - size) << block.width) + (size << block.width) <= 0xFFFF;
}

// Lane i of the result is the sum of lanes 0 to i.
AVX2_INLINE __m256i running_sums(__m256i x) noexcept {
    x = _mm256_add_epi16(x, _mm256_slli_si256(x, 2));
    x = _mm256_add_epi16(x, _mm256_slli_si256(x, 4));
    x = _mm256_add_epi16(x, _mm256_slli_si256(x, 8));
    const __m256i last = _mm256_shuffle_epi8(x, _mm256_set1_epi16(0x0F0E));
    return _mm256_add_epi16(x, _mm256_permute2x128_si256(last, last, 0x08));  // The lower half's sum, to the upper half.
}

AVX2_INLINE __m256i last_of(__m256i x) noexcept {
    return _mm256_permute4x64_epi64(_mm256_shuffle_epi8(x, _mm256_set1_epi16(0x0F0E)), 0xFF);
}

AVX2_INLINE __m256i genes_of(__m128i places, __m256i base) noexcept {
    return _mm256_add_epi32(_mm256_cvtepu16_epi32(places), base);
}

template <bool Floats>
AVX2_INLINE __m256i counts_of(__m128i counts) noexcept {
    const __m256i wide = _mm256_cvtepu16_epi32(counts);
    return Floats ? _mm256_castps_si256(_mm256_cvtepi32_ps(wide)) : wide;
}

// ---- full blocks, in one go ----------------------------------------------------------------------------------------

// Places of genes behind the block's first possible one: j, plus the low bits up to it, plus the zeros up to it times
// 2^Width. `before` holds the sum of the low bits of the parts before.
template <int Width, int Part>
AVX2_INLINE __m256i places_part(const std::uint8_t* low, const std::uint16_t* ones, __m256i& before) noexcept {
    const __m256i sums = _mm256_add_epi16(running_sums(low_part<Width, Part>(low)), before);
    before = last_of(sums);
    const __m256i high = _mm256_slli_epi16(load(ones + 16 * Part), Width);
    return _mm256_add_epi16(_mm256_sub_epi16(sums, load(kOnesBefore.less[Width] + 16 * Part)), high);
}

template <int Width, int Part = 0>
AVX2_INLINE std::uint32_t full_genes(const std::uint8_t* low, const std::uint16_t* ones, __m256i base, __m256i before,
                                     std::int32_t* genes) noexcept {
    const __m256i places = places_part<Width, Part>(low, ones, before);
    const __m128i upper = _mm256_extracti128_si256(places, 1);
    store(genes + 16 * Part, genes_of(_mm256_castsi256_si128(places), base));
    store(genes + 16 * Part + 8, genes_of(upper, base));
    if constexpr (Part < 7)
        return full_genes<Width, Part + 1>(low, ones, base, before, genes);
    else
        return static_cast<std::uint16_t>(_mm_extract_epi16(upper, 7));
}

template <int Width, int Part = 0>
AVX2_INLINE std::uint32_t full_places(const std::uint8_t* low, const std::uint16_t* ones, __m256i before, std::uint16_t* to) noexcept {
    store(to + 16 * Part, places_part<Width, Part>(low, ones, before));
    if constexpr (Part < 7)
        return full_places<Width, Part + 1>(low, ones, before, to);
    else
        return to[kBlock - 1];
}

template <int Width, bool Floats, int Part = 0>
AVX2_INLINE void full_counts(const std::uint8_t* low, const std::uint16_t* ones, std::uint32_t* counts) noexcept {
    if constexpr (Part < 8) {
        const __m256i distance = _mm256_sub_epi16(load(ones + 16 * Part), load(ones + 16 * Part - 1));
        const __m256i less = _mm256_add_epi16(low_part<Width, Part>(low), _mm256_set1_epi16(static_cast<short>(1 - (1 << Width))));
        const __m256i sums = _mm256_add_epi16(_mm256_slli_epi16(distance, Width), less);
        store(counts + 16 * Part, counts_of<Floats>(_mm256_castsi256_si128(sums)));
        store(counts + 16 * Part + 8, counts_of<Floats>(_mm256_extracti128_si256(sums, 1)));
        full_counts<Width, Floats, Part + 1>(low, ones, counts);
    }
}

// Returns the place of the last gene.
AVX2 std::uint32_t full_genes_of(std::uint32_t width, const std::uint8_t* low, const std::uint16_t* ones, std::uint32_t base,
                                 std::int32_t* genes) noexcept {
    const __m256i first = _mm256_set1_epi32(static_cast<int>(base));
    const __m256i zero = _mm256_setzero_si256();
    switch (width) {
        case 1: return full_genes<1>(low, ones, first, zero, genes);
        case 2: return full_genes<2>(low, ones, first, zero, genes);
        case 3: return full_genes<3>(low, ones, first, zero, genes);
        case 4: return full_genes<4>(low, ones, first, zero, genes);
        case 5: return full_genes<5>(low, ones, first, zero, genes);
        case 6: return full_genes<6>(low, ones, first, zero, genes);
        case 7: return full_genes<7>(low, ones, first, zero, genes);
        default: return full_genes<8>(low, ones, first, zero, genes);
    }
}

AVX2 std::uint32_t full_places_of(std::uint32_t width, const std::uint8_t* low, const std::uint16_t* ones, std::uint16_t* places) noexcept {
    const __m256i zero = _mm256_setzero_si256();
    switch (width) {
        case 1: return full_places<1>(low, ones, zero, places);
        case 2: return full_places<2>(low, ones, zero, places);
        case 3: return full_places<3>(low, ones, zero, places);
        case 4: return full_places<4>(low, ones, zero, places);
        case 5: return full_places<5>(low, ones, zero, places);
        case 6: return full_places<6>(low, ones, zero, places);
        case 7: return full_places<7>(low, ones, zero, places);
        default: return full_places<8>(low, ones, zero, places);
    }
}

template <bool Floats>
AVX2 void full_counts_of(std::uint32_t width, const std::uint8_t* low, const std::uint16_t* ones, std::uint32_t* counts) noexcept {
    switch (width) {
        case 1: return full_counts<1, Floats>(low, ones, counts);
        case 2: return full_counts<2, Floats>(low, ones, counts);
        case 3: return full_counts<3, Floats>(low, ones, counts);
        case 4: return full_counts<4, Floats>(low, ones, counts);
        case 5: return full_counts<5, Floats>(low, ones, counts);
        case 6: return full_counts<6, Floats>(low, ones, counts);
        case 7: return full_counts<7, Floats>(low, ones, counts);
        default: return full_counts<8, Floats>(low, ones, counts);
    }
}

// ---- blocks of any size --------------------------------------------------------------------------------------------

// The functions below work on whole vectors: room for `size` rounded up to 16 is needed.

AVX2_INLINE void unary_places(const std::uint16_t* low, const std::uint16_t* ones, std::uint32_t width, std::uint32_t size,
                              std::uint16_t* places) noexcept {
    const __m128i shift = _mm_cvtsi32_si128(static_cast<int>(width));
    __m256i before = _mm256_setzero_si256();
    for (std::uint32_t j = 0; j < size; j += 16) {
        const __m256i sums = _mm256_add_epi16(running_sums(load(low + j)), before);
        const __m256i high = _mm256_sll_epi16(load(ones + j), shift);
        store(places + j, _mm256_add_epi16(_mm256_sub_epi16(sums, load(kOnesBefore.less[width] + j)), high));
        before = last_of(sums);
    }
}

AVX2_INLINE void widen_places(const std::uint16_t* places, std::uint32_t size, std::uint32_t base, std::int32_t* genes) noexcept {
    const __m256i first = _mm256_set1_epi32(static_cast<int>(base));
#pragma GCC unroll 8
    for (std::uint32_t j = 0; j < size; j += 8) store(genes + j, genes_of(load_half(places + j), first));
}

template <bool Floats>
AVX2_INLINE void widen_counts(const std::uint16_t* from, std::uint32_t size, std::uint32_t* counts) noexcept {
    for (std::uint32_t j = 0; j < size; j += 8) store(counts + j, counts_of<Floats>(load_half(from + j)));
}

// Counts without low bits: the distance between two ones. ones[-1] is the place before the first.
template <bool Floats>
AVX2_INLINE void distances(const std::uint16_t* ones, std::uint32_t size, std::uint32_t* counts) noexcept {
#pragma GCC unroll 8
    for (std::uint32_t j = 0; j < size; j += 8)
        store(counts + j, counts_of<Floats>(_mm_sub_epi16(load_half(ones + j), load_half(ones + j - 1))));
}

// Counts with low bits, over these.
AVX2_INLINE void add_distances(const std::uint16_t* ones, std::uint32_t width, std::uint32_t size, std::uint16_t* low) noexcept {
    const __m128i shift = _mm_cvtsi32_si128(static_cast<int>(width));
    const __m256i less = _mm256_set1_epi16(static_cast<short>(1 - (1 << width)));
    for (std::uint32_t j = 0; j < size; j += 16) {
        const __m256i distance = _mm256_sub_epi16(load(ones + j), load(ones + j - 1));
        store(low + j, _mm256_add_epi16(_mm256_add_epi16(_mm256_sll_epi16(distance, shift), less), load(low + j)));
    }
}

// The sum of 128 counts of 16 bits, which floats hold exactly as well.
AVX2_INLINE std::uint64_t sum_full(const std::uint32_t* counts, bool floats) noexcept {
    __m256i sums = load(counts);
    for (std::uint32_t j = 8; j < kBlock; j += 8)
        sums = floats ? _mm256_castps_si256(_mm256_add_ps(_mm256_castsi256_ps(sums), _mm256_castsi256_ps(load(counts + j))))
                      : _mm256_add_epi32(sums, load(counts + j));
    if (floats) sums = _mm256_cvtps_epi32(_mm256_castsi256_ps(sums));
    alignas(32) std::uint32_t lanes[8];
    store(lanes, sums);
    std::uint64_t sum = 0;
    for (const std::uint32_t lane : lanes) sum += lane;
    return sum;
}

inline std::uint64_t sum_narrow(const std::uint16_t* values, std::uint32_t size) noexcept {
    std::uint32_t sum = 0;
    for (std::uint32_t j = 0; j < size; ++j) sum += values[j];
    return sum;
}

}  // namespace
}  // namespace cellmill
