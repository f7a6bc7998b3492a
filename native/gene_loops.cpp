#include "gene_loops.hpp"

#include "codec.hpp"

namespace cellmill {

const GeneLoops& gene_loops() noexcept {
    static constexpr GeneLoops loops{
        [](auto... given) { plain::number(given...); },
        [](const std::uint64_t* numbers, std::size_t n, int half, std::uint32_t low, std::uint32_t most, std::uint32_t* inside, std::size_t* below) {
            *below = 0;
            return plain::near(numbers, n, half, low, most, inside, below, 0, 0);
        },
        [](auto... given) { return plain::keep(given...); },
        [](auto... given) { plain::hide(given...); },
        [](const CountBins& bins, auto... given) { plain::draw(bins, given...); },
        [](auto... given) { return plain::tally(given...); },
    };
    const Vectors use = vectors_in_use();
    const GeneLoops* const wide = use == Vectors::avx512 ? avx512_gene_loops() : use == Vectors::avx2 ? avx2_gene_loops() : nullptr;
    return wide == nullptr ? loops : *wide;
}

}  // namespace cellmill
