// libFuzzer harness of the decoder: any bytes, any number of genes.
//
//     clang++ -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -I native native/fuzz/decode.cpp native/decode.cpp native/decode_wide.cpp native/encode.cpp -o fuzz_decode
//     ./fuzz_decode -max_total_time=60 -max_len=4096
//
// Without libFuzzer, with -DCELLMILL_FUZZ_STANDALONE and another compiler's sanitizers, it mutates frames of its own.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "codec.hpp"

namespace {

void require(bool holds) {
    if (!holds) std::abort();
}

}  // namespace

// The first four bytes are the number of genes, the rest is the frame. What decodes must be a cell, and must survive
// encoding and decoding again.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 4) return 0;
    std::uint32_t n_genes = 0;
    std::memcpy(&n_genes, data, 4);
    n_genes &= 0x7FFFFFFF;
    const std::vector<std::uint8_t> exact(data + 4, data + size);  // So that a read past the end is a read past a block.
    std::uint32_t nnz = 0;
    if (front_of(exact, n_genes, nnz) != cellmill::Fault::none) return 0;
    std::vector<std::int32_t> genes(nnz);
    std::vector<std::uint32_t> counts(nnz);
    cellmill::Decoder decoder;
    if (decoder.decode(exact, n_genes, nnz, genes.data(), counts.data()) != cellmill::Fault::none) return 0;

    std::int64_t last = -1;
    for (std::uint32_t j = 0; j < nnz; ++j) {
        require(genes[j] > last && static_cast<std::uint32_t>(genes[j]) < n_genes && counts[j] >= 1);
        last = genes[j];
    }
    std::vector<std::uint8_t> again;
    cellmill::encode_cell<std::int32_t>(genes, counts, again);
    std::vector<std::int32_t> genes_again(nnz);
    std::vector<std::uint32_t> counts_again(nnz);
    require(decoder.decode(again, n_genes, nnz, genes_again.data(), counts_again.data()) == cellmill::Fault::none);
    require(genes == genes_again && counts == counts_again);
    return 0;
}

#ifdef CELLMILL_FUZZ_STANDALONE
#include <cstdio>

#include "random.hpp"

namespace {

// A cell of `nnz` genes with counts and gaps of mixed sizes.
std::vector<std::uint8_t> random_frame(std::uint64_t seed, std::uint32_t& n_genes) {
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
    n_genes = static_cast<std::uint32_t>(next) + static_cast<std::uint32_t>(shape >> 60);
    std::vector<std::uint8_t> frame;
    cellmill::encode_cell<std::int32_t>(genes, counts, frame);
    return frame;
}

}  // namespace

int main(int argc, char** argv) {
    const std::uint64_t rounds = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 100'000;
    for (std::uint64_t round = 0; round < rounds; ++round) {
        std::uint32_t n_genes = 0;
        std::vector<std::uint8_t> input = random_frame(round, n_genes);
        const std::uint8_t* head = reinterpret_cast<const std::uint8_t*>(&n_genes);
        input.insert(input.begin(), head, head + 4);
        for (std::uint64_t change = 0; change < cellmill::mix64(~round) % 4; ++change) {
            const std::uint64_t draw = cellmill::mix64(round * 4 + change);
            const std::size_t reach = (draw & 1) ? input.size() : std::min<std::size_t>(input.size(), 24);
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
