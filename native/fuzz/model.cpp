// libFuzzer harness of head genes: any model, any section.
//
//     native/fuzz/run.sh 60 model
//
// Without libFuzzer, with -DCELLMILL_FUZZ_STANDALONE and another compiler's sanitizers, it mutates inputs of its own.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "model.hpp"

namespace {

void require(bool holds) {
    if (!holds) std::abort();
}

// What decodes must be a cell, and must survive encoding and decoding again.
void check_section(const cellmill::Model& model, std::span<const std::uint8_t> bytes, std::uint32_t capacity) {
    const std::vector<std::uint8_t> section(bytes.begin(), bytes.end());  // A read past its end leaves a block.
    std::vector<std::int32_t> genes(capacity);
    std::vector<std::uint32_t> counts(capacity);
    const cellmill::HeadDecoded decoded =
        cellmill::decode_head(model, section, genes.data(), counts.data(), capacity);
    require(decoded.nnz <= capacity);
    if (decoded.fault != cellmill::Fault::none) return;
    genes.resize(decoded.nnz);
    counts.resize(decoded.nnz);
    std::int64_t last = -1;
    for (std::size_t j = 0; j < genes.size(); ++j) {
        require(genes[j] > last && static_cast<std::uint32_t>(genes[j]) < model.n_genes() && counts[j] >= 1);
        last = genes[j];
    }
    std::vector<std::uint8_t> again;
    cellmill::encode_head<std::int32_t>(model, genes, counts, again);
    std::vector<std::int32_t> genes_again(decoded.nnz);
    std::vector<std::uint32_t> counts_again(decoded.nnz);
    const cellmill::HeadDecoded twice =
        cellmill::decode_head(model, again, genes_again.data(), counts_again.data(), decoded.nnz);
    require(twice.fault == cellmill::Fault::none && twice.nnz == decoded.nnz);
    require(genes == genes_again && counts == counts_again);
}

// Any counts of any head genes come back.
void check_cell(const cellmill::Model& model, std::span<const std::uint8_t> bytes) {
    std::vector<std::int32_t> genes;
    std::vector<std::uint32_t> counts;
    std::uint64_t gene = 0;
    for (std::size_t at = 0; at + 6 <= bytes.size(); at += 6) {
        std::uint32_t count = 0;
        std::memcpy(&count, bytes.data() + at, 4);
        count >>= bytes[at + 4] & 31;
        gene += bytes[at + 5] & 15;
        if (gene >= model.n_genes()) break;
        genes.push_back(static_cast<std::int32_t>(gene++));
        counts.push_back(std::max<std::uint32_t>(count, 1));
    }
    std::vector<std::uint8_t> section;
    cellmill::encode_head<std::int32_t>(model, genes, counts, section);
    std::vector<std::int32_t> genes_again(genes.size());
    std::vector<std::uint32_t> counts_again(genes.size());
    const cellmill::HeadDecoded decoded = cellmill::decode_head(
        model, section, genes_again.data(), counts_again.data(), static_cast<std::uint32_t>(genes.size()));
    require(decoded.fault == cellmill::Fault::none && decoded.nnz == genes.size());
    require(genes == genes_again && counts == counts_again);
}

}  // namespace

// Four bytes: the length of the model and the room for nonzeros. Then the tables of the model (its header and its hash
// are put around them; bit 15 of the length: they are there already), then the section.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 4) return 0;
    std::uint16_t length = 0;
    std::uint16_t capacity = 0;
    std::memcpy(&length, data, 2);
    std::memcpy(&capacity, data + 2, 2);
    const std::size_t model_bytes = std::min<std::size_t>(length & 0x7FFF, size - 4);
    std::vector<std::uint8_t> bytes;
    if (length >> 15 == 0) {
        // As many genes as there are tables, so that most inputs are models.
        std::uint32_t n_genes = 0;
        for (std::size_t at = 4; at < 4 + model_bytes; ++n_genes) {
            for (std::uint32_t left = data[at++]; left > 0 && at < 4 + model_bytes; --left) at += 1 + (data[at] >> 7);
        }
        const std::uint8_t begin[12] = {'C', 'E', 'L', 'L', 'H', 'E', 'A', 'D', 1, 0, 0, 0};
        bytes.assign(begin, begin + sizeof begin);
        for (int shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<std::uint8_t>(n_genes >> shift));
    }
    bytes.insert(bytes.end(), data + 4, data + 4 + model_bytes);
    if (length >> 15 == 0) bytes.insert(bytes.end(), 8, 0);
    bytes.shrink_to_fit();
    cellmill::Model model;
    if (cellmill::Model::parse(bytes, model) != cellmill::ModelFault::none) {
        require(model.n_genes() == 0);
        return 0;
    }
    const std::span<const std::uint8_t> rest(data + 4 + model_bytes, size - 4 - model_bytes);
    check_section(model, rest, std::min<std::uint32_t>(capacity, model.n_genes()));
    check_section(model, rest, model.n_genes());
    check_cell(model, rest);
    return 0;
}

#ifdef CELLMILL_FUZZ_STANDALONE
#include <cstdio>

#include "random.hpp"

int main(int argc, char** argv) {
    const std::uint64_t rounds = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 100'000;
    for (std::uint64_t round = 0; round < rounds; ++round) {
        const std::uint64_t shape = cellmill::mix64(round);
        std::vector<std::uint8_t> input(4);
        for (std::uint64_t gene = 0; gene < shape % 50; ++gene) {
            const std::uint64_t draw = cellmill::mix64(shape + gene);
            const std::size_t literals = 1 + draw % 12;
            input.push_back(static_cast<std::uint8_t>(literals));
            for (std::size_t symbol = 0; symbol < literals; ++symbol)
                input.push_back(static_cast<std::uint8_t>(1 + (draw >> (4 * symbol)) % 127));
        }
        const std::uint16_t length = static_cast<std::uint16_t>(input.size() - 4);
        const std::uint16_t capacity = static_cast<std::uint16_t>(shape >> 32 & 63);
        std::memcpy(input.data(), &length, 2);
        std::memcpy(input.data() + 2, &capacity, 2);
        for (std::uint64_t at = 0; at < (shape >> 40) % 90; ++at)
            input.push_back(static_cast<std::uint8_t>(cellmill::mix64(~shape + at)));
        for (std::uint64_t change = 0; change < (shape >> 50) % 4; ++change) {
            const std::uint64_t draw = cellmill::mix64(shape ^ change);
            input[(draw >> 8) % input.size()] = static_cast<std::uint8_t>(draw);
        }
        LLVMFuzzerTestOneInput(input.data(), input.size());
    }
    std::printf("%llu inputs, no fault\n", static_cast<unsigned long long>(rounds));
}
#endif
