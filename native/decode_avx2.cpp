// Reading frames with 32-byte vectors (AVX2 and BMI2); what does not fit 16 bits goes the long way (avx2_blocks.hpp).
#include <algorithm>
#include <array>
#include <bit>

#include "vector_decoder.hpp"

#if CELLMILL_X86_VECTORS
#include "avx2_blocks.hpp"

namespace cellmill {
namespace {

// ---- counts of a kind ----------------------------------------------------------------------------------------------

// Largest count that each kind holds exactly.
constexpr std::uint32_t most_of(Kind kind) noexcept {
    return kind == Kind::float32 ? 1U << 24 : kind == Kind::int32 ? 0x7FFFFFFFU : 0xFFFFFFFFU;
}

inline std::uint32_t as_kind(std::uint32_t count, bool floats) noexcept {
    return floats ? std::bit_cast<std::uint32_t>(static_cast<float>(static_cast<std::int32_t>(count))) : count;
}

// What is read of the counts of a frame, besides the counts.
struct Tally {
    std::uint64_t total = 0;
    bool beyond = false;  // A count that the kind does not hold.
};

class Avx2Decoder final : public VectorDecoder {
public:
    AVX2 Fault decode(const BlocksAt& blocks, Kind kind, std::int32_t* genes, std::uint32_t* counts, std::uint64_t* total,
                      std::size_t& end) override;
    AVX2 Fault decode_some(const BlocksAt& blocks, GeneBits wanted, std::int32_t* genes, std::uint32_t* counts,
                           std::uint32_t& kept, std::uint64_t* total) override;

private:
    AVX2 Fault read_gaps(const BlockHeader& block, std::uint32_t size, const std::uint8_t* payload, std::uint32_t n_genes,
                         std::uint64_t& next_gene, std::int32_t* genes) noexcept;
    AVX2 Fault read_wide_gaps(const BlockHeader& block, std::uint32_t size, const std::uint8_t* payload, std::uint64_t& next_gene,
                              std::int32_t* genes) noexcept;
    AVX2 Fault read_counts(const BlockHeader& block, std::uint32_t size, const std::uint8_t* payload, Kind kind,
                           std::uint32_t* counts, Tally& tally) noexcept;
    AVX2 Fault read_wide_counts(const BlockHeader& block, std::uint32_t size, const std::uint8_t* payload) noexcept;
    template <class Entry>
    AVX2 static Fault each_exception(const BlockHeader& block, std::uint32_t size, const std::uint8_t* entries, Fault overflow,
                                     const Entry& entry) noexcept;
    AVX2 Fault find_wanted(const BlockHeader& block, std::uint32_t size, const std::uint8_t* payload,
                           const std::uint16_t* expanded, std::uint32_t n_genes, GeneBits wanted, std::uint64_t& next_gene, std::int32_t* genes, std::uint32_t& found) noexcept;
    AVX2 Fault counts_of_found(const BlockHeader& block, std::uint32_t size, const std::uint8_t* payload,
                               const std::uint16_t* expanded, std::uint32_t found, std::uint32_t* counts,
                               std::uint64_t* total) noexcept;

    AVX2 void expand_group(const BlockHeader* headers, std::uint32_t n_streams, const std::uint8_t* payload, bool bitmaps) noexcept;
    AVX2 static void put_genes(const BlockHeader& block, const std::uint8_t* payload, const std::uint16_t* ones,
                               std::uint64_t& next_gene, std::int32_t* genes) noexcept;
    AVX2 static void put_counts(const BlockHeader& block, const std::uint8_t* payload, const std::uint16_t* ones, bool floats,
                                std::uint32_t* counts) noexcept;

    static constexpr std::size_t kOnesBegin = 16;
    static constexpr std::size_t kMostOnes = kMaxUnaryBytes * 8 + 64;  // What a section can write.
    static constexpr std::uint32_t kGroup = 8;                         // Full blocks that are expanded together.
    static constexpr std::size_t kGroupStep = kBlock + 80;  // A sound section writes a word of places behind its ones at most.

    std::uint16_t* ones() noexcept { return ones_.data() + kOnesBegin; }
    std::uint16_t* group_ones(std::uint32_t stream) noexcept { return group_ones_.data() + kOnesBegin + stream * kGroupStep; }

    // Places of ones from kOnesBegin on; before them the place of -1, so that each has a predecessor.
    alignas(64) std::array<std::uint16_t, kOnesBegin + kMostOnes> ones_{};
    alignas(64) std::array<std::uint16_t, kOnesBegin + 2 * kGroup * kGroupStep + kMostOnes> group_ones_{};
    std::array<bool, 2 * kGroup> expanded_{};
    alignas(64) std::array<std::uint16_t, kBlock + 16> low16_{};
    alignas(64) std::array<std::uint16_t, kBlock + 16> places_{};
    alignas(64) std::array<std::uint32_t, kBlock> low_{};
    alignas(64) std::array<std::int32_t, kBlock + 16> genes_{};
    alignas(64) std::array<std::uint32_t, kBlock + 16> counts_{};
    alignas(64) std::array<std::uint32_t, kBlock + 16> rest_counts_{};
    std::array<std::uint8_t, kBlock> found_{};  // Numbers, within a block, of the genes that are wanted.
    BlockHeaders headers_;
};

// Calls entry(position, what the exception adds) for each exception; false from it is `overflow`.
template <class Entry>
AVX2 Fault Avx2Decoder::each_exception(const BlockHeader& block, std::uint32_t size, const std::uint8_t* entries, Fault overflow,
                                       const Entry& entry) noexcept {
    const std::uint32_t entry_bits = kPositionBits + block.high_bits;
    std::uint32_t least = 0;
    bool sound = true;
    for (std::uint32_t i = 0, bit = 0; i < block.exceptions; ++i, bit += entry_bits) {
        const std::uint64_t bits = _bzhi_u64(load_u64(entries + (bit >> 3)) >> (bit & 7), entry_bits);
        const std::uint32_t position = static_cast<std::uint32_t>(bits & (kBlock - 1));
        if (position < least || position >= size) return Fault::exception;
        least = position + 1;
        sound &= entry(position, ((bits >> kPositionBits) + 1) << block.width);
    }
    return sound ? Fault::none : overflow;
}

// ---- gaps ----------------------------------------------------------------------------------------------------------

AVX2 Fault Avx2Decoder::read_gaps(const BlockHeader& block, std::uint32_t size, const std::uint8_t* payload,
                                  std::uint32_t n_genes, std::uint64_t& next_gene, std::int32_t* genes) noexcept {
    const std::uint32_t base = static_cast<std::uint32_t>(next_gene);
    if (block.mode == kUnary && fits_16_bits(block, size)) {
        if (!expand_ones(payload + block.low_bytes, block.unary_bytes, size, ones())) return Fault::unary;
        if (block.width == 0) {
            widen_places(ones(), size, base, genes);
            next_gene += std::uint64_t{ones()[size - 1]} + 1;
        } else {
            unpack_narrow(payload, size, block.width, low16_.data());
            unary_places(low16_.data(), ones(), block.width, size, places_.data());
            widen_places(places_.data(), size, base, genes);
            next_gene += std::uint64_t{places_[size - 1]} + 1;
        }
    } else {
        const Fault fault = read_wide_gaps(block, size, payload, next_gene, genes);
        if (fault != Fault::none) return fault;
    }
    return next_gene > n_genes ? Fault::gene_range : Fault::none;
}

AVX2 Fault Avx2Decoder::read_wide_gaps(const BlockHeader& block, std::uint32_t size, const std::uint8_t* payload,
                                       std::uint64_t& next_gene, std::int32_t* genes) noexcept {
    unpack_any(payload, size, block.width, low_.data());
    if (block.mode == kUnary) {
        if (!expand_ones(payload + block.low_bytes, block.unary_bytes, size, ones())) return Fault::unary;
        std::uint16_t* const places = ones();
        std::uint64_t gene = next_gene;
        for (std::uint32_t j = 0, before = 0; j < size; before = places[j++] + 1U) {
            gene += low_[j] + ((places[j] - before) << block.width);
            genes[j] = static_cast<std::int32_t>(gene++);
        }
        next_gene = gene;
        return Fault::none;
    }
    if (block.mode == kPatched) {
        const auto add = [this](std::uint32_t position, std::uint64_t more) noexcept {
            const std::uint64_t value = low_[position] + more;
            low_[position] = static_cast<std::uint32_t>(value);
            return value <= kMaxCountLessOne;
        };
        const Fault fault = each_exception(block, size, payload + block.low_bytes, Fault::gene_range, add);
        if (fault != Fault::none) return fault;
    }
    for (std::uint32_t j = 0; j < size; ++j) {
        next_gene += low_[j];
        genes[j] = static_cast<std::int32_t>(next_gene++);
    }
    return Fault::none;
}

// ---- counts --------------------------------------------------------------------------------------------------------

// The counts of any block, in counts_.
AVX2 Fault Avx2Decoder::read_wide_counts(const BlockHeader& block, std::uint32_t size, const std::uint8_t* payload) noexcept {
    std::uint32_t* const counts = counts_.data();
    unpack_any(payload, size, block.width, low_.data());
    if (block.mode == kUnary) {
        ones()[-1] = 0xFFFF;
        if (!expand_ones(payload + block.low_bytes, block.unary_bytes, size, ones())) return Fault::unary;
        for (std::uint32_t j = 0; j < size; ++j) {
            const std::uint32_t distance = static_cast<std::uint16_t>(ones()[j] - ones()[static_cast<std::ptrdiff_t>(j) - 1]);
            counts[j] = ((distance - 1) << block.width) + low_[j] + 1;
        }
        return Fault::none;
    }
    if (block.mode == kPatched) {
        const auto add = [this](std::uint32_t position, std::uint64_t more) noexcept {
            const std::uint64_t value = low_[position] + more;
            low_[position] = static_cast<std::uint32_t>(value);
            return value <= kMaxCountLessOne;
        };
        const Fault fault = each_exception(block, size, payload + block.low_bytes, Fault::count_overflow, add);
        if (fault != Fault::none) return fault;
    }
    if (block.width == kMaxWidth && std::find(low_.begin(), low_.begin() + size, 0xFFFFFFFFU) != low_.begin() + size)
        return Fault::count_overflow;
    for (std::uint32_t j = 0; j < size; ++j) counts[j] = low_[j] + 1;
    return Fault::none;
}

AVX2 Fault Avx2Decoder::read_counts(const BlockHeader& block, std::uint32_t size, const std::uint8_t* payload, Kind kind,
                                    std::uint32_t* counts, Tally& tally) noexcept {
    const bool floats = kind == Kind::float32;
    if (block.mode == kUnary && fits_16_bits(block, size)) {
        ones()[-1] = 0xFFFF;
        if (!expand_ones(payload + block.low_bytes, block.unary_bytes, size, ones())) return Fault::unary;
        if (block.width == 0) {
            tally.total += std::uint64_t{ones()[size - 1]} + 1;
            floats ? distances<true>(ones(), size, counts) : distances<false>(ones(), size, counts);
            return Fault::none;
        }
        unpack_narrow(payload, size, block.width, low16_.data());
        add_distances(ones(), block.width, size, low16_.data());
        tally.total += sum_narrow(low16_.data(), size);
        floats ? widen_counts<true>(low16_.data(), size, counts) : widen_counts<false>(low16_.data(), size, counts);
        return Fault::none;
    }
    if (block.width == 0 && block.mode != kUnary) {  // Ones, but for the exceptions.
        std::fill_n(counts, size, as_kind(1, floats));
        tally.total += size;
        if (block.mode == kPlain) return Fault::none;
        const auto put = [&](std::uint32_t position, std::uint64_t more) noexcept {
            counts[position] = as_kind(static_cast<std::uint32_t>(more + 1), floats);
            tally.total += more;
            tally.beyond |= more >= most_of(kind);
            return more <= kMaxCountLessOne;
        };
        return each_exception(block, size, payload + block.low_bytes, Fault::count_overflow, put);
    }
    const Fault fault = read_wide_counts(block, size, payload);
    if (fault != Fault::none) return fault;
    for (std::uint32_t j = 0; j < size; ++j) {
        const std::uint32_t count = counts_[j];
        tally.total += count;
        tally.beyond |= count > most_of(kind);
        counts[j] = as_kind(count, floats);
    }
    return Fault::none;
}

// Expands the sections of some full blocks, before any of them is read: what was just stored is slow to load. Notes for
// each stream whether it is expanded; others, those at fault too, are left to whoever reads single blocks. Gaps that are
// `bitmaps` need not be expanded to look some genes up.
AVX2 void Avx2Decoder::expand_group(const BlockHeader* headers, std::uint32_t n_streams, const std::uint8_t* payload,
                                    bool bitmaps) noexcept {
    for (std::uint32_t stream = 0; stream < n_streams; ++stream) {
        const BlockHeader& block = headers[stream];
        expanded_[stream] = block.mode == kUnary && fits_16_bits(block, kBlock) && (bitmaps || block.width > 0 || stream % 2 == 1) &&
                            expand_ones(payload + block.low_bytes, block.unary_bytes, kBlock, group_ones(stream));
        payload += block.payload_bytes;
    }
    // What one section writes behind its ones ends before the next, but for one at fault, so the predecessors come last.
    for (std::uint32_t stream = 0; stream < n_streams; ++stream) group_ones(stream)[-1] = 0xFFFF;
}

// The genes of a full block that is expanded.
AVX2 void Avx2Decoder::put_genes(const BlockHeader& block, const std::uint8_t* payload, const std::uint16_t* ones,
                                 std::uint64_t& next_gene, std::int32_t* genes) noexcept {
    const std::uint32_t base = static_cast<std::uint32_t>(next_gene);
    if (block.width == 0) {
        widen_places(ones, kBlock, base, genes);
        next_gene += std::uint64_t{ones[kBlock - 1]} + 1;
    } else {
        next_gene += std::uint64_t{full_genes_of(block.width, payload, ones, base, genes)} + 1;
    }
}

// The counts of a full block that is expanded.
AVX2 void Avx2Decoder::put_counts(const BlockHeader& block, const std::uint8_t* payload, const std::uint16_t* ones, bool floats,
                                  std::uint32_t* counts) noexcept {
    if (block.width == 0)
        floats ? distances<true>(ones, kBlock, counts) : distances<false>(ones, kBlock, counts);
    else
        floats ? full_counts_of<true>(block.width, payload, ones, counts)
               : full_counts_of<false>(block.width, payload, ones, counts);
}

AVX2 Fault Avx2Decoder::decode(const BlocksAt& blocks, Kind kind, std::int32_t* genes, std::uint32_t* counts,
                               std::uint64_t* total, std::size_t& end) {
    const std::uint8_t* payload = nullptr;
    end = blocks.size;
    Fault fault = headers_.read(blocks.frame, end, blocks.headers, blocks.alone, blocks.nnz, payload);
    if (fault != Fault::none) return fault;
    const bool floats = kind == Kind::float32;
    const std::uint32_t in_full = blocks.nnz / kBlock * kBlock;
    std::uint64_t next_gene = 0;
    Tally tally;
    const BlockHeader* block = headers_.data();
    for (std::uint32_t done = 0; done < in_full;) {
        const std::uint32_t n_streams = 2 * std::min<std::uint32_t>(kGroup, (in_full - done) / kBlock);
        expand_group(block, n_streams, payload, true);
        for (std::uint32_t stream = 0; stream < n_streams; stream += 2, block += 2, done += kBlock) {
            if (expanded_[stream]) {
                put_genes(block[0], payload, group_ones(stream), next_gene, genes + done);
                if (next_gene > blocks.n_genes) return Fault::gene_range;
            } else {
                fault = read_gaps(block[0], kBlock, payload, blocks.n_genes, next_gene, genes + done);
                if (fault != Fault::none) return fault;
            }
            payload += block[0].payload_bytes;
            if (expanded_[stream + 1]) {
                put_counts(block[1], payload, group_ones(stream + 1), floats, counts + done);
                if (total != nullptr) tally.total += sum_full(counts + done, floats);
            } else {
                fault = read_counts(block[1], kBlock, payload, kind, counts + done, tally);
                if (fault != Fault::none) return fault;
            }
            payload += block[1].payload_bytes;
        }
    }
    if (const std::uint32_t rest = blocks.nnz - in_full; rest > 0) {  // By way of scratch: whole vectors are written.
        fault = read_gaps(block[0], rest, payload, blocks.n_genes, next_gene, genes_.data());
        if (fault != Fault::none) return fault;
        fault = read_counts(block[1], rest, payload + block[0].payload_bytes, kind, rest_counts_.data(), tally);
        if (fault != Fault::none) return fault;
        std::copy_n(genes_.data(), rest, genes + in_full);
        std::copy_n(rest_counts_.data(), rest, counts + in_full);
    }
    if (total != nullptr) *total = tally.total;
    return tally.beyond ? Fault::count_kind : Fault::none;
}

// ---- some genes ----------------------------------------------------------------------------------------------------

// 64 genes of the panel, from gene `first` on. `wanted` has gene_bit_words words.
AVX2_INLINE std::uint64_t wanted_from(GeneBits wanted, std::uint32_t first) noexcept {
    const std::uint8_t* const at = reinterpret_cast<const std::uint8_t*>(wanted) + (first >> 3);
    const std::uint32_t shift = first & 7;
    return load_u64(at) >> shift | (std::uint64_t{at[8]} << 1) << (63 - shift);
}

// Which of 16 ascending places, counted from gene `base`, are wanted.
AVX2_INLINE std::uint32_t wanted_of_16(GeneBits wanted, std::uint32_t base, const std::uint16_t* places, std::uint32_t size) noexcept {
    const std::uint32_t first = base + places[0];
    const std::uint32_t begin = first & ~7U;
    const std::uint32_t there = size < 16 ? (1U << size) - 1 : 0xFFFF;
    if (places[std::min<std::uint32_t>(size, 16) - 1] - places[0] + (first - begin) < 256) {
        // The 256 genes from there on are looked up as 32 bytes, and in each byte a bit.
        const std::uint8_t* const bytes = reinterpret_cast<const std::uint8_t*>(wanted) + (begin >> 3);
        const __m256i lower = _mm256_broadcastsi128_si256(load_half(bytes));
        const __m256i upper = _mm256_broadcastsi128_si256(load_half(bytes + 16));
        const __m256i at = _mm256_add_epi16(load(places), _mm256_set1_epi16(static_cast<short>(base - begin)));
        const __m256i byte = _mm256_srli_epi16(at, 3);
        const __m256i bits_of = _mm256_setr_epi8(1, 2, 4, 8, 16, 32, 64, -128, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, -128,
                                                 0, 0, 0, 0, 0, 0, 0, 0);
        // The upper byte of each place looks up nothing.
        const __m256i bit = _mm256_shuffle_epi8(
            bits_of, _mm256_or_si256(_mm256_and_si256(at, _mm256_set1_epi16(7)), _mm256_set1_epi16(static_cast<short>(0x8000))));
        const __m256i found = _mm256_blendv_epi8(_mm256_shuffle_epi8(lower, byte), _mm256_shuffle_epi8(upper, byte),
                                                 _mm256_slli_epi16(byte, 3));
        const __m256i missed = _mm256_cmpeq_epi16(_mm256_and_si256(found, bit), _mm256_setzero_si256());
        return ~_pext_u32(static_cast<std::uint32_t>(_mm256_movemask_epi8(missed)), 0x55555555U) & there;
    }
    std::uint32_t hits = 0;
    for (std::uint32_t j = 0; j < std::min<std::uint32_t>(size, 16); ++j) {
        const std::uint32_t gene = base + places[j];
        hits |= (wanted[gene >> 5] >> (gene & 31) & 1) << j;
    }
    return hits;
}

// Writes the wanted genes of a block, and their numbers within it to found_. `expanded` are the ones of its section where
// they are known, null elsewhere.
AVX2 Fault Avx2Decoder::find_wanted(const BlockHeader& block, std::uint32_t size, const std::uint8_t* payload,
                                    const std::uint16_t* expanded, std::uint32_t n_genes, GeneBits wanted, std::uint64_t& next_gene, std::int32_t* genes,
                                    std::uint32_t& found) noexcept {
    const std::uint32_t base = static_cast<std::uint32_t>(next_gene);
    std::uint32_t n = 0;
    if (block.mode == kUnary && block.width == 0) {  // A bitmap: the wanted ones are those of both.
        const std::uint8_t* const section = payload;
        std::uint32_t ones = 0;
        for (std::uint32_t at = 0; at < block.unary_bytes; at += 8)
            ones += static_cast<std::uint32_t>(_mm_popcnt_u64(_bzhi_u64(load_u64(section + at), 8 * std::min<std::uint32_t>(8, block.unary_bytes - at))));
        const std::uint32_t last = section[block.unary_bytes - 1];
        if (ones != size || last == 0) return Fault::unary;
        next_gene += 8 * std::uint64_t{block.unary_bytes} - static_cast<std::uint64_t>(std::countl_zero(static_cast<std::uint8_t>(last)));
        if (next_gene > n_genes) return Fault::gene_range;
        std::uint32_t before = 0;
        for (std::uint32_t at = 0; at < block.unary_bytes; at += 8) {
            const std::uint64_t cell = _bzhi_u64(load_u64(section + at), 8 * std::min<std::uint32_t>(8, block.unary_bytes - at));
            std::uint64_t hits = cell & wanted_from(wanted, base + 8 * at);
            for (; hits != 0; hits &= hits - 1) {
                const std::uint32_t place = static_cast<std::uint32_t>(std::countr_zero(hits));
                genes[n] = static_cast<std::int32_t>(base + 8 * at + place);
                found_[n++] = static_cast<std::uint8_t>(before + static_cast<std::uint32_t>(_mm_popcnt_u64(_bzhi_u64(cell, place))));
            }
            before += static_cast<std::uint32_t>(_mm_popcnt_u64(cell));
        }
    } else if (block.mode == kUnary && fits_16_bits(block, size)) {
        if (expanded == nullptr) {
            if (!expand_ones(payload + block.low_bytes, block.unary_bytes, size, ones())) return Fault::unary;
            expanded = ones();
        }
        if (size == kBlock) {
            full_places_of(block.width, payload, expanded, places_.data());
        } else {
            unpack_narrow(payload, size, block.width, low16_.data());
            unary_places(low16_.data(), expanded, block.width, size, places_.data());
        }
        next_gene += std::uint64_t{places_[size - 1]} + 1;
        if (next_gene > n_genes) return Fault::gene_range;
        for (std::uint32_t begin = 0; begin < size; begin += 64) {
            std::uint64_t hits = 0;
            for (std::uint32_t j = begin; j < std::min(size, begin + 64); j += 16)
                hits |= std::uint64_t{wanted_of_16(wanted, base, places_.data() + j, size - j)} << (j - begin);
            for (; hits != 0; hits &= hits - 1) {
                const std::uint32_t j = begin + static_cast<std::uint32_t>(std::countr_zero(hits));
                genes[n] = static_cast<std::int32_t>(base + places_[j]);
                found_[n++] = static_cast<std::uint8_t>(j);
            }
        }
    } else {
        const Fault fault = read_wide_gaps(block, size, payload, next_gene, genes_.data());
        if (fault != Fault::none) return fault;
        if (next_gene > n_genes) return Fault::gene_range;
        for (std::uint32_t j = 0; j < size; ++j) {
            const std::uint32_t gene = static_cast<std::uint32_t>(genes_[j]);
            genes[n] = genes_[j];
            found_[n] = static_cast<std::uint8_t>(j);
            n += wanted[gene >> 5] >> (gene & 31) & 1;
        }
    }
    found = n;
    return Fault::none;
}

// The counts of the genes in found_; all of the block is checked. `expanded` as above.
AVX2 Fault Avx2Decoder::counts_of_found(const BlockHeader& block, std::uint32_t size, const std::uint8_t* payload,
                                        const std::uint16_t* expanded, std::uint32_t found, std::uint32_t* counts,
                                        std::uint64_t* total) noexcept {
    if (block.mode == kUnary && fits_16_bits(block, size)) {
        if (expanded == nullptr) {
            ones()[-1] = 0xFFFF;
            if (!expand_ones(payload + block.low_bytes, block.unary_bytes, size, ones())) return Fault::unary;
            expanded = ones();
        }
        const std::uint16_t* const ends = expanded;
        const std::uint16_t* const begins = ends - 1;
        if (block.width == 0) {
            for (std::uint32_t i = 0; i < found; ++i) counts[i] = static_cast<std::uint16_t>(ends[found_[i]] - begins[found_[i]]);
            if (total != nullptr) *total += std::uint64_t{ends[size - 1]} + 1;
            return Fault::none;
        }
        unpack_narrow(payload, size, block.width, low16_.data());
        for (std::uint32_t i = 0; i < found; ++i) {
            const std::uint32_t distance = static_cast<std::uint16_t>(ends[found_[i]] - begins[found_[i]]);
            counts[i] = ((distance - 1) << block.width) + low16_[found_[i]] + 1;
        }
        if (total != nullptr)
            *total += sum_narrow(low16_.data(), size) + size + (std::uint64_t{ends[size - 1] + 1U - size} << block.width);
        return Fault::none;
    }
    Tally tally;
    const Fault fault = read_counts(block, size, payload, Kind::uint32, counts_.data(), tally);
    if (fault != Fault::none) return fault;
    for (std::uint32_t i = 0; i < found; ++i) counts[i] = counts_[found_[i]];
    if (total != nullptr) *total += tally.total;
    return Fault::none;
}

AVX2 Fault Avx2Decoder::decode_some(const BlocksAt& blocks, GeneBits wanted, std::int32_t* genes, std::uint32_t* counts,
                                    std::uint32_t& kept, std::uint64_t* total) {
    kept = 0;
    const std::uint8_t* payload = nullptr;
    std::size_t end = blocks.size;
    Fault fault = headers_.read(blocks.frame, end, blocks.headers, blocks.alone, blocks.nnz, payload);
    if (fault != Fault::none) return fault;
    std::uint64_t next_gene = 0;
    std::uint64_t all = 0;
    const BlockHeader* block = headers_.data();
    std::uint32_t in_group = 0;
    std::uint32_t stream = 0;
    for (std::uint32_t done = 0; done < blocks.nnz; done += kBlock, block += 2, stream += 2) {
        const std::uint32_t size = std::min<std::uint32_t>(kBlock, blocks.nnz - done);
        if (stream == in_group && size == kBlock) {
            in_group = 2 * std::min<std::uint32_t>(kGroup, (blocks.nnz - done) / kBlock);
            stream = 0;
            expand_group(block, in_group, payload, false);
        }
        const bool full = size == kBlock;
        std::uint32_t found = 0;
        fault = find_wanted(block[0], size, payload, full && expanded_[stream] ? group_ones(stream) : nullptr, blocks.n_genes, wanted,
                            next_gene, genes + kept, found);
        if (fault != Fault::none) return fault;
        payload += block[0].payload_bytes;
        fault = counts_of_found(block[1], size, payload, full && expanded_[stream + 1] ? group_ones(stream + 1) : nullptr, found,
                                counts + kept, total == nullptr ? nullptr : &all);
        if (fault != Fault::none) return fault;
        payload += block[1].payload_bytes;
        kept += found;
    }
    if (total != nullptr) *total = all;
    return Fault::none;
}

}  // namespace

bool has_avx2() noexcept {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
           __builtin_cpu_supports("popcnt");
}

std::unique_ptr<VectorDecoder> make_avx2_decoder() { return std::make_unique<Avx2Decoder>(); }

}  // namespace cellmill

#else

namespace cellmill {

bool has_avx2() noexcept { return false; }

std::unique_ptr<VectorDecoder> make_avx2_decoder() { return nullptr; }

}  // namespace cellmill

#endif
