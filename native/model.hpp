// Head genes: the counts of the first genes, zeros too, by rANS against one frequency table a gene. The layout is
// docs/reference/format.md, "Head genes". Knows neither frames nor files nor Python. Every byte is taken as hostile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "codec.hpp"

namespace cellmill {

// What is wrong with a model; the numbers are those of src/cellmill/kernel/reference/model.py, MODEL_FAULTS.
enum class ModelFault : int {
    none = 0,
    truncated = 1,
    magic = 2,
    genes = 3,
    literals = 4,
    frequency = 5,
    trailing = 6,
};

inline constexpr std::uint32_t kProbabilityBits = 14;
inline constexpr std::uint32_t kTotal = 1U << kProbabilityBits;

// The frequency tables of head genes; immutable once parsed, so that threads may share it.
class Model {
public:
    // Checks everything but the hash at the end, which is the caller's: it has the file.
    static ModelFault parse(std::span<const std::uint8_t> bytes, Model& model);

    std::uint32_t n_genes() const noexcept { return static_cast<std::uint32_t>(zero_.size()); }

    // How many of the 2^14 slots a count of 0 has; they are the first.
    std::uint32_t zero_slots(std::uint32_t gene) const noexcept { return zero_[gene]; }

    // Where the slots of each symbol end; those of the escape, which is the last, end at 2^14, and no others do.
    const std::uint16_t* ends(std::uint32_t gene) const noexcept { return ends_.data() + rows_[gene]; }

    // Literal symbols of a gene, 1 to 124; the escape comes after them.
    std::uint32_t literals(std::uint32_t gene) const noexcept { return rows_[gene + 1] - rows_[gene] - 1; }

private:
    std::vector<std::uint16_t> zero_;
    std::vector<std::uint32_t> rows_;
    std::vector<std::uint16_t> ends_;
};

// Appends the section of one cell: its genes below model.n_genes(), ascending, each once, with counts of 1 or more;
// the caller has checked.
template <class Gene>
void encode_head(const Model& model, std::span<const Gene> genes, std::span<const std::uint32_t> counts,
                 std::vector<std::uint8_t>& out);

extern template void encode_head(const Model&, std::span<const std::int32_t>, std::span<const std::uint32_t>,
                                 std::vector<std::uint8_t>&);
extern template void encode_head(const Model&, std::span<const std::int64_t>, std::span<const std::uint32_t>,
                                 std::vector<std::uint8_t>&);

struct HeadDecoded {
    std::uint32_t nnz;
    Fault fault;
};

// Writes the genes and counts of one section, `capacity` at most, and says how many. On a fault what was written is
// undefined, but nothing beyond `capacity` entries is touched.
HeadDecoded decode_head(const Model& model, std::span<const std::uint8_t> section, std::int32_t* genes,
                        std::uint32_t* counts, std::uint32_t capacity) noexcept;

}  // namespace cellmill
