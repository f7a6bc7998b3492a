// Reading frames with the processor's vectors: the face that Decoder (codec.hpp) sees. Each way gives the same cells and
// the same refusals as the plain one; which is taken is settled at run time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "codec.hpp"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define CELLMILL_X86_VECTORS 1
// What may use them: called where `has_avx2` holds.
// Marked function by function, not by compiler flags: a template of the standard library that is compiled under such
// flags could be the copy that the linker keeps for everybody.
#define AVX2 __attribute__((target("avx2,bmi,bmi2,popcnt")))
#define WIDE __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,bmi,bmi2,popcnt")))  // `has_avx512`.
#else
#define CELLMILL_X86_VECTORS 0
#endif

namespace cellmill {

// The blocks of one frame, as Decoder hands them on.
struct BlocksAt {
    const std::uint8_t* frame;  // Followed by at least kSlack readable bytes.
    std::size_t size;           // Bytes of the frame.
    std::size_t headers;        // Where the first header is.
    bool alone;                 // The blocks must end with the frame.
    std::uint32_t n_genes;
    std::uint32_t nnz;
};

// Holds the scratch of one thread.
class VectorDecoder {
public:
    virtual ~VectorDecoder() = default;

    // Writes exactly nnz genes, and nnz counts as `kind` has them. `total`, where not null, gets the sum of the counts; `end` where
    // the blocks end.
    virtual Fault decode(const BlocksAt& blocks, Kind kind, std::int32_t* genes, std::uint32_t* counts, std::uint64_t* total,
                         std::size_t& end) = 0;

    // As Decoder::decode_some.
    virtual Fault decode_some(const BlocksAt& blocks, GeneBits wanted, std::int32_t* genes, std::uint32_t* counts,
                              std::uint32_t& kept, std::uint64_t* total) = 0;
};

bool has_avx512() noexcept;
bool has_avx2() noexcept;
std::unique_ptr<VectorDecoder> make_avx512_decoder();
std::unique_ptr<VectorDecoder> make_avx2_decoder();

}  // namespace cellmill
