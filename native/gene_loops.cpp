#include "gene_loops.hpp"

#include "codec.hpp"

namespace cellmill {
namespace {

void number(std::uint64_t stream, const GeneOfColumn* genes, const std::int32_t* columns, std::size_t n, std::uint64_t* numbers,
            std::int64_t* tokens) {
    for (std::size_t i = 0; i < n; ++i) {
        const GeneOfColumn& gene = genes[columns[i]];
        numbers[i] = mix64(stream ^ gene.mixed);
        tokens[i] = gene.token;
    }
}

std::size_t near(const std::uint64_t* numbers, std::size_t n, int half, std::uint32_t low, std::uint32_t most, std::uint32_t* inside,
                 std::size_t* below) {
    std::size_t found = 0;
    std::size_t less = 0;
    for (std::size_t i = 0; i < n; ++i) {  // Without branches: which way they go is random.
        const std::uint32_t at = static_cast<std::uint32_t>(numbers[i] >> half);
        inside[found] = at;
        less += at < low;
        found += at - low <= most;
    }
    *below = less;
    return found;
}

std::size_t keep(std::uint64_t* numbers, std::int64_t* tokens, const std::uint32_t* counts, std::size_t n, std::uint32_t rank,
                 std::uint32_t* to_counts) {
    std::size_t at = 0;
    for (std::size_t i = 0; i < n; ++i) {
        const std::uint64_t number = numbers[i];
        tokens[at] = tokens[i];
        to_counts[at] = counts[i];
        numbers[at] = number;
        at += static_cast<std::uint32_t>(number >> 32) <= rank;
    }
    return at;
}

void hide(const std::uint64_t* numbers, std::size_t n, std::uint32_t rank, std::uint8_t* hidden) {
    for (std::size_t i = 0; i < n; ++i) hidden[i] = static_cast<std::uint32_t>(numbers[i]) <= rank;
}

void draw(const CountBins& bins, const std::uint64_t* numbers, const std::uint32_t* counts, std::size_t n, float zero, float* to) {
    for (std::size_t i = 0; i < n; ++i) to[i] = bins.draw(counts[i], to_uniform(number_to_bin(numbers[i])), zero);
}

std::size_t tally(const std::uint32_t* counts, std::size_t n, std::uint32_t* sizes, std::uint32_t* large) {
    std::size_t n_large = 0;
    for (std::size_t i = 0; i < n; ++i) {
        const std::uint32_t count = counts[i];
        if (count < kTallied)
            ++sizes[count];
        else
            large[n_large++] = count;
    }
    return n_large;
}

}  // namespace

const GeneLoops& gene_loops() noexcept {
    static constexpr GeneLoops plain{number, near, keep, hide, draw, tally};
    const Vectors use = vectors_in_use();
    const GeneLoops* const wide = use == Vectors::avx512 ? avx512_gene_loops() : use == Vectors::avx2 ? avx2_gene_loops() : nullptr;
    return wide == nullptr ? plain : *wide;
}

}  // namespace cellmill
