// libFuzzer harness of the decoder: any bytes, any number of genes, any set of wanted genes; with and without vectors.
//
//     native/fuzz/run.sh 60 decode
//
// Without libFuzzer, with -DCELLMILL_FUZZ_STANDALONE and another compiler's sanitizers, it mutates frames of its own.
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <span>
#include <vector>

#include "codec.hpp"
#include "encode.hpp"
#include "model.hpp"
#include "random.hpp"

namespace {

using cellmill::Fault;
using cellmill::Vectors;

constexpr Vectors kVectors[] = {Vectors::avx2, Vectors::avx512};  // Where the processor lacks them, those below.

constexpr std::uint32_t kMostWantedGenes = 1 << 20;  // Bits of more genes would take most of the time.
constexpr std::uint8_t kHeadGenes = 12;
constexpr std::size_t kRoomBehind = 16;              // What decode_some may touch beyond the nonzeros.

void require(bool holds) {
    if (!holds) std::abort();
}

// Head genes of a store: some tables of few and of many literals.
const cellmill::Model& some_head() {
    static const cellmill::Model head = [] {
        std::vector<std::uint8_t> bytes = {'C', 'E', 'L', 'L', 'H', 'E', 'A', 'D', 1, 0, 0, 0, kHeadGenes, 0, 0, 0};
        for (std::uint8_t gene = 0; gene < kHeadGenes; ++gene) {
            const std::uint8_t literals = 1 + gene * gene % 100;
            bytes.push_back(literals);
            for (std::uint8_t symbol = 0; symbol < literals; ++symbol) bytes.push_back(1 + (gene * 37 + symbol) % 100);
        }
        bytes.insert(bytes.end(), 8, 0);  // In place of its hash, which whoever opens the file has checked.
        cellmill::Model parsed;
        require(cellmill::Model::parse(bytes, parsed) == cellmill::ModelFault::none);
        return parsed;
    }();
    return head;
}

// A store, as far as frames need it.
struct Genes {
    std::uint32_t count;
    const cellmill::Model* head;
};

// What one way of decoding makes of a frame.
struct Outcome {
    Fault fault = Fault::none;
    std::vector<std::int32_t> genes;
    std::vector<std::uint32_t> counts;
    std::uint64_t total = 0;

    bool operator==(const Outcome&) const = default;
};

// A fault is all that counts of a frame that is refused.
Outcome finished(Outcome outcome, std::size_t kept) {
    if (outcome.fault != Fault::none) return {outcome.fault, {}, {}, 0};
    outcome.genes.resize(kept);
    outcome.counts.resize(kept);
    return outcome;
}

Outcome decode_all(std::span<const std::uint8_t> frame, Genes store, std::uint32_t nnz, Vectors vectors) {
    cellmill::limit_vectors(vectors);
    cellmill::Decoder decoder(store.head);
    Outcome outcome{Fault::none, std::vector<std::int32_t>(nnz), std::vector<std::uint32_t>(nnz), 0};
    outcome.fault = decoder.decode(frame, store.count, nnz, outcome.genes.data(), outcome.counts.data());
    return finished(std::move(outcome), nnz);
}

Outcome decode_wanted(std::span<const std::uint8_t> frame, Genes store, std::uint32_t nnz,
                      const std::vector<std::uint32_t>& wanted, Vectors vectors) {
    cellmill::limit_vectors(vectors);
    cellmill::Decoder decoder(store.head);
    Outcome outcome{Fault::none, std::vector<std::int32_t>(nnz + kRoomBehind),
                    std::vector<std::uint32_t>(nnz + kRoomBehind), 0};
    std::uint32_t kept = 0;
    outcome.fault = decoder.decode_some(frame, store.count, nnz, wanted.data(), outcome.genes.data(), outcome.counts.data(),
                                        kept, &outcome.total);
    require(kept <= nnz);
    return finished(std::move(outcome), kept);
}

// A set of genes: from nearly none to nearly all, by the upper bits of the draw.
std::vector<std::uint32_t> wanted_genes(std::uint32_t n_genes, std::uint32_t draw) {
    std::vector<std::uint32_t> bits(cellmill::gene_bit_words(n_genes));
    for (std::size_t word = 0; word <= n_genes / 32; ++word) {
        const std::uint64_t drawn = cellmill::mix64(draw + (std::uint64_t{word} << 32));
        const std::uint32_t low = static_cast<std::uint32_t>(drawn), high = static_cast<std::uint32_t>(drawn >> 32);
        const std::uint32_t choices[4] = {low & high & (low >> 7 | high << 9), low, low | high, ~std::uint32_t{0}};
        bits[word] = choices[draw >> 30];
    }
    return bits;
}

// What decode_some must give, from what decode gave.
Outcome kept_of(const Outcome& all, const std::vector<std::uint32_t>& wanted) {
    Outcome kept{all.fault, {}, {}, std::accumulate(all.counts.begin(), all.counts.end(), std::uint64_t{0})};
    for (std::size_t j = 0; j < all.genes.size(); ++j) {
        const std::uint32_t gene = static_cast<std::uint32_t>(all.genes[j]);
        if ((wanted[gene / 32] >> (gene % 32) & 1) == 0) continue;
        kept.genes.push_back(all.genes[j]);
        kept.counts.push_back(all.counts[j]);
    }
    return kept;
}

// Floats and totals, which vectors write on the way, against the counts.
void check_kinds(std::span<const std::uint8_t> frame, Genes store, std::uint32_t nnz, const Outcome& plain) {
    for (const Vectors vectors : {Vectors::plain, Vectors::avx2, Vectors::avx512}) {
        cellmill::limit_vectors(vectors);
        cellmill::Decoder decoder(store.head);
        std::vector<std::int32_t> genes(nnz);
        std::vector<std::uint32_t> values(nnz);
        std::uint64_t total = 0;
        const Fault fault = decoder.decode(frame, store.count, nnz, genes.data(), values.data(), cellmill::Kind::float32, &total);
        if (plain.fault != Fault::none) {
            require(fault == plain.fault);
            continue;
        }
        std::uint64_t sum = 0;
        bool fits = true;
        for (std::size_t j = 0; j < nnz; ++j) {
            sum += plain.counts[j];
            fits = fits && plain.counts[j] <= 1U << 24;
        }
        require(fault == (fits ? Fault::none : Fault::count_kind));
        if (!fits) continue;
        require(total == sum && genes == plain.genes);
        for (std::size_t j = 0; j < nnz; ++j) require(std::bit_cast<float>(values[j]) == static_cast<float>(plain.counts[j]));
    }
}

void check_cell(const Outcome& cell, std::uint32_t n_genes) {
    std::int64_t last = -1;
    for (std::size_t j = 0; j < cell.genes.size(); ++j) {
        require(cell.genes[j] > last && static_cast<std::uint32_t>(cell.genes[j]) < n_genes && cell.counts[j] >= 1);
        last = cell.genes[j];
    }
}

}  // namespace

// Four bytes are the number of genes, four which of them are wanted, the rest is the frame. Both ways of decoding must
// agree; what decodes must be a cell, and must survive encoding and decoding again.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 8) return 0;
    std::uint32_t n_genes = 0;
    std::uint32_t draw = 0;
    std::memcpy(&n_genes, data, 4);
    std::memcpy(&draw, data + 4, 4);
    n_genes &= 0x7FFFFFFF;
    const std::vector<std::uint8_t> exact(data + 8, data + size);  // So that a read past the end is a read past a block.
    // The lowest bit of the draw says whether there are head genes.
    const Genes store{n_genes, (draw & 1) && n_genes >= kHeadGenes ? &some_head() : nullptr};
    cellmill::FrameFront front;
    if (cellmill::read_front(exact, n_genes, store.head, front) != Fault::none) return 0;
    const std::uint32_t nnz = front.nnz;
    const Outcome plain = decode_all(exact, store, nnz, Vectors::plain);
    for (const Vectors vectors : kVectors) require(decode_all(exact, store, nnz, vectors) == plain);
    check_kinds(exact, store, nnz, plain);
    if (n_genes <= kMostWantedGenes) {
        const std::vector<std::uint32_t> wanted = wanted_genes(n_genes, draw);
        const Outcome some = kept_of(plain, wanted);
        require(decode_wanted(exact, store, nnz, wanted, Vectors::plain) == some);
        for (const Vectors vectors : kVectors) require(decode_wanted(exact, store, nnz, wanted, vectors) == some);
    }
    if (plain.fault != Fault::none) return 0;
    check_cell(plain, n_genes);
    std::vector<std::uint8_t> again;
    cellmill::Encoder encoder(store.head);
    cellmill::encode_cell<std::int32_t>(encoder, plain.genes, plain.counts, again);
    require(decode_all(again, store, nnz, Vectors::plain) == plain);
    for (const Vectors vectors : kVectors) require(decode_all(again, store, nnz, vectors) == plain);
    return 0;
}

// ---- inputs to begin with ------------------------------------------------------------------------------------------

namespace {

// An input whose frame is sound: a cell with counts and gaps of mixed sizes.
std::vector<std::uint8_t> sound_input(std::uint64_t seed) {
    const std::uint64_t shape = cellmill::mix64(seed);
    const std::uint32_t nnz = static_cast<std::uint32_t>(shape % 400);
    std::vector<std::int32_t> genes(nnz);
    std::vector<std::uint32_t> counts(nnz);
    std::int32_t next = 0;
    for (std::uint32_t j = 0; j < nnz; ++j) {
        const std::uint64_t draw = cellmill::mix64(shape + j);
        next += static_cast<std::int32_t>((draw & 0xFFFF) >> (draw >> 16 & 15));
        genes[j] = next++;
        counts[j] = 1 + (static_cast<std::uint32_t>(draw >> 32) >> (draw >> 20 & 31)) / 2;
    }
    const std::uint32_t head[2] = {static_cast<std::uint32_t>(next) + static_cast<std::uint32_t>(shape >> 60),
                                   static_cast<std::uint32_t>(cellmill::mix64(shape))};
    std::vector<std::uint8_t> input(sizeof head);
    std::memcpy(input.data(), head, sizeof head);
    cellmill::Encoder encoder((head[1] & 1) && head[0] >= kHeadGenes ? &some_head() : nullptr);
    cellmill::encode_cell<std::int32_t>(encoder, genes, counts, input);
    return input;
}

}  // namespace

#ifndef CELLMILL_FUZZ_STANDALONE
extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

// Now and then a sound frame, which libFuzzer's own changes would hardly find; else these.
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned int seed) {
    if (seed % 64 != 0) return LLVMFuzzerMutate(data, size, max_size);
    const std::vector<std::uint8_t> sound = sound_input(seed);
    const std::size_t taken = std::min(sound.size(), max_size);
    std::memcpy(data, sound.data(), taken);
    return taken;
}
#else
#include <cstdio>

int main(int argc, char** argv) {
    const std::uint64_t rounds = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 100'000;
    for (std::uint64_t round = 0; round < rounds; ++round) {
        std::vector<std::uint8_t> input = sound_input(round);
        for (std::uint64_t change = 0; change < cellmill::mix64(~round) % 4; ++change) {
            const std::uint64_t draw = cellmill::mix64(round * 4 + change);
            const std::size_t reach = (draw & 1) ? input.size() : std::min<std::size_t>(input.size(), 28);
            const std::size_t at = (draw >> 8) % reach;
            if ((draw >> 1) % 8 == 0)
                input.resize(at);
            else
                input[at] = static_cast<std::uint8_t>(draw >> 56);
            if (input.empty()) break;
        }
        LLVMFuzzerTestOneInput(input.data(), input.size());
    }
    std::printf("%llu frames, no fault\n", static_cast<unsigned long long>(rounds));
}
#endif
