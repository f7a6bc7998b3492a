// Reading frames with 64-byte vectors (AVX-512 with VBMI2).
#include <algorithm>
#include <array>

#include "block_headers.hpp"
#include "frames.hpp"
#include "packing.hpp"
#include "vector_decoder.hpp"

#if CELLMILL_X86_VECTORS
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // In the intrinsics of GCC 12 themselves.
#endif
#include <immintrin.h>

namespace cellmill {
namespace {

using Block = BlockHeader;

constexpr std::uint32_t kVectorWidths = 8;  // Widths that are unpacked by vectors; wider ones are rare.

// Where the 16 values of each eighth of a full block lie among its packed words, and by how many bits to shift them.
struct Places {
    alignas(64) std::uint32_t word[kVectorWidths + 1][8][16];
    alignas(64) std::uint32_t shift[kVectorWidths + 1][8][16];
};

constexpr Places kPlaces = [] {
    Places places{};
    for (std::uint32_t width = 0; width <= kVectorWidths; ++width)
        for (std::uint32_t eighth = 0; eighth < 8; ++eighth)
            for (std::uint32_t lane = 0; lane < 16; ++lane) {
                const std::uint32_t bit = (4 * eighth + lane / 4) * width;
                places.word[width][eighth][lane] = 4 * (bit / 32) + lane % 4;
                places.shift[width][eighth][lane] = bit % 32;
            }
    return places;
}();

struct Iota {
    alignas(64) std::uint8_t byte[64];
    alignas(64) std::uint32_t word[16];
};

constexpr Iota kIota = [] {
    Iota iota{};
    for (unsigned i = 0; i < 64; ++i) iota.byte[i] = static_cast<std::uint8_t>(i);
    for (unsigned i = 0; i < 16; ++i) iota.word[i] = i;
    return iota;
}();

// Low bits of a full block, of at most eight bits each.
WIDE inline void unpack_full(const std::uint8_t* from, std::uint32_t width, std::uint32_t* to) noexcept {
    const __m512i mask = _mm512_set1_epi32(static_cast<int>((1U << width) - 1));
    const __m512i four = _mm512_set1_epi32(4);
    const __m512i low = _mm512_loadu_si512(from);
    if (width <= 4) {
        for (int eighth = 0; eighth < 8; ++eighth) {
            const __m512i word = _mm512_load_si512(kPlaces.word[width][eighth]);
            const __m512i shift = _mm512_load_si512(kPlaces.shift[width][eighth]);
            const __m512i here = _mm512_permutexvar_epi32(word, low);
            const __m512i next = _mm512_permutexvar_epi32(_mm512_add_epi32(word, four), low);
            _mm512_store_si512(to + 16 * eighth, _mm512_and_si512(_mm512_shrdv_epi32(here, next, shift), mask));
        }
        return;
    }
    const __m512i high = _mm512_loadu_si512(from + 64);
    for (int eighth = 0; eighth < 8; ++eighth) {
        const __m512i word = _mm512_load_si512(kPlaces.word[width][eighth]);
        const __m512i shift = _mm512_load_si512(kPlaces.shift[width][eighth]);
        const __m512i here = _mm512_permutex2var_epi32(low, word, high);
        const __m512i next = _mm512_permutex2var_epi32(low, _mm512_add_epi32(word, four), high);
        _mm512_store_si512(to + 16 * eighth, _mm512_and_si512(_mm512_shrdv_epi32(here, next, shift), mask));
    }
}

// Low bits of a short block: eight values are `width` whole bytes.
WIDE inline void unpack_bytes(const std::uint8_t* from, std::uint32_t size, std::uint32_t width, std::uint32_t* to) noexcept {
    const std::uint64_t field = 0x0101010101010101ULL * ((1U << width) - 1);
    for (std::uint32_t j = 0; j < size; j += 8, from += width) {
        const std::uint64_t bytes = _pdep_u64(load_u64(from), field);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + j),
                            _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(bytes))));
    }
}

WIDE inline void unpack_low(const Block& block, std::uint32_t size, const std::uint8_t* from, std::uint32_t* to) noexcept {
    if (size == kBlock) {
        if (block.width <= kVectorWidths)
            unpack_full(from, block.width, to);
        else
            kUnpackBlock[block.width](from, to);
    } else if (block.width <= kVectorWidths) {
        unpack_bytes(from, size, block.width, to);
    } else {
        unpack_short(from, size, block.width, to);
    }
}

// Writes the places of the ones of a section, and returns whether there is one for each value and none idle at the end.
WIDE inline bool expand_ones(const std::uint8_t* section, std::uint32_t bytes, std::uint32_t size, std::uint16_t* ones) noexcept {
    const __m512i iota = _mm512_load_si512(kIota.byte);
    std::uint16_t* to = ones;
    __m512i base = _mm512_setzero_si512();
    for (std::uint32_t at = 0; at < bytes; at += 8) {
        std::uint64_t word = load_u64(section + at);
        word = _bzhi_u64(word, 8 * std::min<std::uint32_t>(8, bytes - at));
        const __m512i places = _mm512_maskz_compress_epi8(word, iota);
        _mm512_storeu_si512(to, _mm512_add_epi16(_mm512_cvtepu8_epi16(_mm512_castsi512_si256(places)), base));
        _mm512_storeu_si512(to + 32, _mm512_add_epi16(_mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(places, 1)), base));
        to += _mm_popcnt_u64(word);
        base = _mm512_add_epi16(base, _mm512_set1_epi16(64));
    }
    return to - ones == static_cast<std::ptrdiff_t>(size) && section[bytes - 1] != 0;
}

WIDE inline __m512i running_sums(__m512i x) noexcept {
    const __m512i zero = _mm512_setzero_si512();
    x = _mm512_add_epi32(x, _mm512_alignr_epi32(x, zero, 15));
    x = _mm512_add_epi32(x, _mm512_alignr_epi32(x, zero, 14));
    x = _mm512_add_epi32(x, _mm512_alignr_epi32(x, zero, 12));
    return _mm512_add_epi32(x, _mm512_alignr_epi32(x, zero, 8));
}

WIDE inline __m512i last_of(__m512i x) noexcept { return _mm512_permutexvar_epi32(_mm512_set1_epi32(15), x); }

WIDE inline __m512i widen_ones(const std::uint16_t* ones) noexcept {
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(ones)));
}

// The functions below write whole vectors: room for `size` rounded up to 16 is needed.

WIDE inline void bitmap_genes(const std::uint16_t* ones, std::uint32_t size, std::uint32_t base, std::int32_t* genes) noexcept {
    const __m512i first = _mm512_set1_epi32(static_cast<int>(base));
    for (std::uint32_t j = 0; j < size; j += 16)
        _mm512_storeu_si512(genes + j, _mm512_add_epi32(widen_ones(ones + j), first));
}

// Gene j is `base` plus j, plus the low bits up to it, plus the zeros up to it times 2^width.
WIDE inline void unary_genes(const std::uint32_t* low, const std::uint16_t* ones, std::uint32_t width, std::uint32_t size,
                             std::uint32_t base, std::int32_t* genes) noexcept {
    const __m128i shift = _mm_cvtsi32_si128(static_cast<int>(width));
    __m512i number = _mm512_load_si512(kIota.word);
    __m512i before = _mm512_set1_epi32(static_cast<int>(base));
    for (std::uint32_t j = 0; j < size; j += 16) {
        const __m512i sums = _mm512_add_epi32(running_sums(_mm512_loadu_si512(low + j)), before);
        const __m512i high = _mm512_sll_epi32(_mm512_sub_epi32(widen_ones(ones + j), number), shift);
        _mm512_storeu_si512(genes + j, _mm512_add_epi32(_mm512_add_epi32(sums, number), high));
        before = last_of(sums);
        number = _mm512_add_epi32(number, _mm512_set1_epi32(16));
    }
}

WIDE inline void gap_genes(const std::uint32_t* gaps, std::uint32_t size, std::uint32_t base, std::int32_t* genes) noexcept {
    __m512i before = _mm512_set1_epi32(static_cast<int>(base));
    __m512i number = _mm512_load_si512(kIota.word);
    for (std::uint32_t j = 0; j < size; j += 16) {
        const __m512i sums = _mm512_add_epi32(running_sums(_mm512_loadu_si512(gaps + j)), before);
        _mm512_storeu_si512(genes + j, _mm512_add_epi32(sums, number));
        before = last_of(sums);
        number = _mm512_add_epi32(number, _mm512_set1_epi32(16));
    }
}

// The distance between two ones is the high part plus one.
WIDE inline void bitmap_counts(const std::uint16_t* ones, std::uint32_t size, std::uint32_t* counts) noexcept {
    for (std::uint32_t j = 0; j < size; j += 32) {
        const __m512i distance = _mm512_sub_epi16(_mm512_loadu_si512(ones + j), _mm512_loadu_si512(ones + j - 1));
        _mm512_storeu_si512(counts + j, _mm512_cvtepu16_epi32(_mm512_castsi512_si256(distance)));
        _mm512_storeu_si512(counts + j + 16, _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(distance, 1)));
    }
}

WIDE inline void unary_counts(const std::uint32_t* low, const std::uint16_t* ones, std::uint32_t width, std::uint32_t size,
                              std::uint32_t* counts) noexcept {
    const __m128i shift = _mm_cvtsi32_si128(static_cast<int>(width));
    const __m512i one = _mm512_set1_epi32(1);
    const __m256i one16 = _mm256_set1_epi16(1);
    for (std::uint32_t j = 0; j < size; j += 16) {
        const __m256i distance = _mm256_sub_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(ones + j)),
                                                  _mm256_loadu_si256(reinterpret_cast<const __m256i*>(ones + j - 1)));
        const __m512i high = _mm512_sll_epi32(_mm512_cvtepu16_epi32(_mm256_sub_epi16(distance, one16)), shift);
        _mm512_storeu_si512(counts + j,
                            _mm512_add_epi32(_mm512_add_epi32(high, one), _mm512_loadu_si512(low + j)));
    }
}

WIDE inline void plain_counts(const std::uint32_t* low, std::uint32_t size, std::uint32_t* counts) noexcept {
    const __m512i one = _mm512_set1_epi32(1);
    for (std::uint32_t j = 0; j < size; j += 16)
        _mm512_storeu_si512(counts + j, _mm512_add_epi32(_mm512_loadu_si512(low + j), one));
}

WIDE inline Fault patch(const Block& block, std::uint32_t size, const std::uint8_t* entries, std::uint32_t* values,
                        Fault overflow) noexcept {
    const std::uint32_t entry_bits = kPositionBits + block.high_bits;
    std::uint32_t least = 0;
    bool overflows = false;
    for (std::uint32_t i = 0, bit = 0; i < block.exceptions; ++i, bit += entry_bits) {
        const std::uint64_t entry = _bzhi_u64(load_u64(entries + (bit >> 3)) >> (bit & 7), entry_bits);
        const std::uint32_t position = static_cast<std::uint32_t>(entry & (kBlock - 1));
        if (position < least || position >= size) return Fault::exception;
        least = position + 1;
        const std::uint64_t value = values[position] + (((entry >> kPositionBits) + 1) << block.width);
        overflows |= value > kMaxCountLessOne;
        values[position] = static_cast<std::uint32_t>(value);
    }
    return overflows ? overflow : Fault::none;
}

// Scratch that the two streams of a block are read with.
struct Scratch {
    std::uint16_t* ones;  // ones[-1] can be written.
    std::uint32_t* low;
};

WIDE inline Fault read_gaps(const Block& block, std::uint32_t size, const std::uint8_t* payload, std::uint32_t n_genes,
                            const Scratch& scratch, std::uint64_t& next_gene, std::int32_t* genes) noexcept {
    const std::uint32_t base = static_cast<std::uint32_t>(next_gene);
    if (block.mode == kUnary) {
        if (!expand_ones(payload + block.low_bytes, block.unary_bytes, size, scratch.ones)) return Fault::unary;
        if (block.width == 0) {
            bitmap_genes(scratch.ones, size, base, genes);
        } else {
            unpack_low(block, size, payload, scratch.low);
            unary_genes(scratch.low, scratch.ones, block.width, size, base, genes);
        }
        next_gene = static_cast<std::uint64_t>(static_cast<std::uint32_t>(genes[size - 1])) + 1;
    } else {
        unpack_low(block, size, payload, scratch.low);
        if (block.mode == kPatched) {
            const Fault fault = patch(block, size, payload + block.low_bytes, scratch.low, Fault::gene_range);
            if (fault != Fault::none) return fault;
        }
        if (block.width + block.high_bits <= kNarrow) {
            gap_genes(scratch.low, size, base, genes);
            next_gene = static_cast<std::uint64_t>(static_cast<std::uint32_t>(genes[size - 1])) + 1;
        } else {
            for (std::uint32_t j = 0; j < size; ++j) {
                next_gene += scratch.low[j];
                genes[j] = static_cast<std::int32_t>(next_gene++);
            }
        }
    }
    return next_gene > n_genes ? Fault::gene_range : Fault::none;
}

WIDE inline Fault read_counts(const Block& block, std::uint32_t size, const std::uint8_t* payload, const Scratch& scratch,
                              std::uint32_t* counts) noexcept {
    if (block.mode == kUnary) {
        scratch.ones[-1] = 0xFFFF;
        if (!expand_ones(payload + block.low_bytes, block.unary_bytes, size, scratch.ones)) return Fault::unary;
        if (block.width == 0) {
            bitmap_counts(scratch.ones, size, counts);
        } else {
            unpack_low(block, size, payload, scratch.low);
            unary_counts(scratch.low, scratch.ones, block.width, size, counts);
        }
        return Fault::none;
    }
    unpack_low(block, size, payload, scratch.low);
    if (block.mode == kPatched) {
        const Fault fault = patch(block, size, payload + block.low_bytes, scratch.low, Fault::count_overflow);
        if (fault != Fault::none) return fault;
    }
    if (block.width == kMaxWidth && std::find(scratch.low, scratch.low + size, 0xFFFFFFFFU) != scratch.low + size)
        return Fault::count_overflow;
    plain_counts(scratch.low, size, counts);
    return Fault::none;
}

// Moves the genes that are wanted, and their counts, to the front of the room that is left; returns how many.
WIDE inline std::uint32_t keep_some(GeneBits wanted, const std::int32_t* genes, const std::uint32_t* counts,
                                   std::uint32_t size, std::int32_t* kept_genes, std::uint32_t* kept_counts) noexcept {
    const __m512i one = _mm512_set1_epi32(1);
    const __m512i five_bits = _mm512_set1_epi32(31);
    std::uint32_t kept = 0;
    for (std::uint32_t j = 0; j < size; j += 16) {
        const __mmask16 there = static_cast<__mmask16>(_bzhi_u32(0xFFFF, std::min<std::uint32_t>(16, size - j)));
        const __m512i gene = _mm512_loadu_si512(genes + j);
        const __m512i word = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), there, _mm512_srli_epi32(gene, 5), wanted, 4);
        const __m512i bit = _mm512_sllv_epi32(one, _mm512_and_si512(gene, five_bits));
        const __mmask16 hits = _mm512_mask_test_epi32_mask(there, word, bit);
        _mm512_storeu_si512(kept_genes + kept, _mm512_maskz_compress_epi32(hits, gene));
        _mm512_storeu_si512(kept_counts + kept, _mm512_maskz_compress_epi32(hits, _mm512_loadu_si512(counts + j)));
        kept += static_cast<std::uint32_t>(_mm_popcnt_u32(hits));
    }
    return kept;
}

WIDE std::uint64_t sum_of(const std::uint32_t* counts, std::size_t size) noexcept {
    __m512i sums = _mm512_setzero_si512();
    for (std::size_t j = 0; j < size; j += 8) {
        const __mmask8 there = static_cast<__mmask8>(_bzhi_u32(0xFF, static_cast<unsigned>(std::min<std::size_t>(8, size - j))));
        sums = _mm512_add_epi64(sums, _mm512_cvtepu32_epi64(_mm256_maskz_loadu_epi32(there, counts + j)));
    }
    return static_cast<std::uint64_t>(_mm512_reduce_add_epi64(sums));
}

// Rewrites counts in place as float32, rounded to nearest, and returns the largest count.
WIDE std::uint32_t to_floats(std::uint32_t* counts, std::size_t size) noexcept {
    __m512i largest = _mm512_setzero_si512();
    for (std::size_t j = 0; j < size; j += 16) {
        const __mmask16 there = static_cast<__mmask16>(_bzhi_u32(0xFFFF, static_cast<unsigned>(std::min<std::size_t>(16, size - j))));
        const __m512i some = _mm512_maskz_loadu_epi32(there, counts + j);
        largest = _mm512_max_epu32(largest, some);
        _mm512_mask_storeu_ps(counts + j, there, _mm512_cvtepu32_ps(some));
    }
    return _mm512_reduce_max_epu32(largest);
}

class Avx512Decoder final : public VectorDecoder {
public:
    WIDE Fault decode(const BlocksAt& blocks, Kind kind, std::int32_t* genes, std::uint32_t* counts, std::uint64_t* total,
                      std::size_t& end) override;
    WIDE Fault decode_some(const BlocksAt& blocks, GeneBits wanted, std::int32_t* genes, std::uint32_t* counts,
                           std::uint32_t& kept, std::uint64_t* total) override;

private:
    static constexpr std::size_t kOnesBegin = 32;
    alignas(64) std::array<std::uint16_t, kOnesBegin + kMaxUnaryBytes * 8 + 128> ones_{};
    alignas(64) std::array<std::uint32_t, kBlock> low_{};
    alignas(64) std::array<std::int32_t, kBlock + 16> genes_{};
    alignas(64) std::array<std::uint32_t, kBlock + 16> counts_{};
    BlockHeaders headers_;
};

WIDE Fault Avx512Decoder::decode(const BlocksAt& blocks, Kind kind, std::int32_t* genes, std::uint32_t* counts,
                                 std::uint64_t* total, std::size_t& end) {
    const std::uint32_t nnz = blocks.nnz;
    const std::uint8_t* payload = nullptr;
    end = blocks.size;
    Fault fault = headers_.read(blocks.frame, end, blocks.headers, blocks.alone, nnz, payload);
    if (fault != Fault::none) return fault;
    const Scratch scratch{ones_.data() + kOnesBegin, low_.data()};
    std::uint64_t next_gene = 0;
    const Block* block = headers_.data();
    for (std::uint32_t done = 0; done < nnz; done += kBlock, block += 2) {
        const std::uint32_t size = std::min<std::uint32_t>(kBlock, nnz - done);
        const bool rest = size < kBlock;  // By way of scratch: whole vectors would be written beyond the room.
        std::int32_t* const genes_to = rest ? genes_.data() : genes + done;
        std::uint32_t* const counts_to = rest ? counts_.data() : counts + done;
        fault = read_gaps(block[0], size, payload, blocks.n_genes, scratch, next_gene, genes_to);
        if (fault != Fault::none) return fault;
        payload += block[0].payload_bytes;
        fault = read_counts(block[1], size, payload, scratch, counts_to);
        if (fault != Fault::none) return fault;
        payload += block[1].payload_bytes;
        if (rest) {
            std::copy_n(genes_to, size, genes + done);
            std::copy_n(counts_to, size, counts + done);
        }
    }
    if (total != nullptr) *total = sum_of(counts, nnz);
    if (kind == Kind::float32) return to_floats(counts, nnz) <= 1U << 24 ? Fault::none : Fault::count_kind;
    if (kind == Kind::int32 && std::any_of(counts, counts + nnz, [](std::uint32_t count) { return count > 0x7FFFFFFFU; }))
        return Fault::count_kind;
    return Fault::none;
}

WIDE Fault Avx512Decoder::decode_some(const BlocksAt& blocks, GeneBits wanted, std::int32_t* genes, std::uint32_t* counts,
                                      std::uint32_t& kept, std::uint64_t* total) {
    kept = 0;
    const std::uint8_t* payload = nullptr;
    std::size_t end = blocks.size;
    Fault fault = headers_.read(blocks.frame, end, blocks.headers, blocks.alone, blocks.nnz, payload);
    if (fault != Fault::none) return fault;
    const Scratch scratch{ones_.data() + kOnesBegin, low_.data()};
    std::uint64_t next_gene = 0;
    std::uint64_t all = 0;
    const Block* block = headers_.data();
    for (std::uint32_t done = 0; done < blocks.nnz; done += kBlock, block += 2) {
        const std::uint32_t values = std::min<std::uint32_t>(kBlock, blocks.nnz - done);
        fault = read_gaps(block[0], values, payload, blocks.n_genes, scratch, next_gene, genes_.data());
        if (fault != Fault::none) return fault;
        payload += block[0].payload_bytes;
        fault = read_counts(block[1], values, payload, scratch, counts_.data());
        if (fault != Fault::none) return fault;
        payload += block[1].payload_bytes;
        kept += keep_some(wanted, genes_.data(), counts_.data(), values, genes + kept, counts + kept);
        if (total != nullptr) all += sum_of(counts_.data(), values);
    }
    if (total != nullptr) *total = all;
    return Fault::none;
}

}  // namespace

bool has_avx512() noexcept {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vbmi") &&
           __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
}

std::unique_ptr<VectorDecoder> make_avx512_decoder() { return std::make_unique<Avx512Decoder>(); }

}  // namespace cellmill

#else

namespace cellmill {

bool has_avx512() noexcept { return false; }

std::unique_ptr<VectorDecoder> make_avx512_decoder() { return nullptr; }

}  // namespace cellmill

#endif
