// Packing of 128 values at one width: 32-bit words in rows of four, value j in lane j mod 4, and the plain bit string
// of short blocks. Knows widths and bytes alone.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

namespace cellmill {

static_assert(std::endian::native == std::endian::little, "the kernel reads little-endian words in place");

typedef std::uint32_t Lanes __attribute__((vector_size(16)));

inline Lanes load_lanes(const void* at) noexcept {
    Lanes lanes;
    std::memcpy(&lanes, at, sizeof lanes);
    return lanes;
}

inline void store_lanes(void* at, Lanes lanes) noexcept { std::memcpy(at, &lanes, sizeof lanes); }

inline std::uint64_t load_u64(const std::uint8_t* at) noexcept {
    std::uint64_t word;
    std::memcpy(&word, at, sizeof word);
    return word;
}

inline Lanes widen(const std::uint16_t* at) noexcept {
    typedef std::uint16_t Halves __attribute__((vector_size(8)));
    Halves halves;
    std::memcpy(&halves, at, sizeof halves);
    return __builtin_convertvector(halves, Lanes);
}

// Lane i of the result is the sum of lanes 0 to i.
inline Lanes running_sums(Lanes x) noexcept {
    const Lanes zero{};
    x += __builtin_shufflevector(zero, x, 0, 4, 5, 6);
    return x + __builtin_shufflevector(zero, x, 0, 1, 4, 5);
}

inline Lanes last_lane(Lanes x) noexcept { return __builtin_shufflevector(x, x, 3, 3, 3, 3); }

template <int Width, int Step>
inline void unpack_step(const std::uint8_t* from, std::uint32_t* to) noexcept {
    constexpr int bit = Step * Width;
    constexpr int row = bit / 32;
    constexpr int shift = bit % 32;
    Lanes lanes = load_lanes(from + 16 * row) >> shift;
    if constexpr (shift + Width > 32) lanes |= load_lanes(from + 16 * (row + 1)) << (32 - shift);
    if constexpr (Width < 32 && shift + Width != 32) lanes &= (std::uint32_t{1} << Width) - 1;
    store_lanes(to + 4 * Step, lanes);
}

// Reads 16 * Width bytes, writes 128 values.
template <int Width>
void unpack_block(const std::uint8_t* from, std::uint32_t* to) noexcept {
    if constexpr (Width == 0) {
        (void)from;
        std::memset(to, 0, 128 * sizeof *to);
    } else {
        [&]<std::size_t... Step>(std::index_sequence<Step...>) {
            (unpack_step<Width, static_cast<int>(Step)>(from, to), ...);
        }(std::make_index_sequence<32>{});
    }
}

using UnpackBlock = void (*)(const std::uint8_t*, std::uint32_t*) noexcept;

inline constexpr auto kUnpackBlock = []<std::size_t... Width>(std::index_sequence<Width...>) {
    return std::array<UnpackBlock, sizeof...(Width)>{&unpack_block<static_cast<int>(Width)>...};
}(std::make_index_sequence<33>{});

// Reads a plain bit string of `size` values; touches up to 8 bytes past its end.
inline void unpack_short(const std::uint8_t* from, std::uint32_t size, std::uint32_t width, std::uint32_t* to) noexcept {
    const std::uint64_t mask = (std::uint64_t{1} << width) - 1;
    for (std::uint32_t j = 0; j < size; ++j) {
        const std::uint32_t bit = j * width;
        to[j] = static_cast<std::uint32_t>((load_u64(from + (bit >> 3)) >> (bit & 7)) & mask);
    }
}

// Writes 16 * width bytes of the low `width` bits of 128 values.
inline void pack_block(const std::uint32_t* from, std::uint32_t width, std::uint8_t* to) noexcept {
    if (width == 0) return;
    const std::uint32_t mask = width == 32 ? ~std::uint32_t{0} : (std::uint32_t{1} << width) - 1;
    Lanes row{};
    std::uint32_t shift = 0;
    for (std::uint32_t step = 0; step < 32; ++step) {
        const Lanes lanes = load_lanes(from + 4 * step) & mask;
        row |= lanes << shift;
        shift += width;
        if (shift >= 32) {
            store_lanes(to, row);
            to += 16;
            shift -= 32;
            row = shift ? lanes >> (width - shift) : Lanes{};
        }
    }
}

// Appends bit fields, least significant bit first.
class BitWriter {
public:
    explicit BitWriter(std::uint8_t* to) noexcept : to_(to) {}

    // `bits` is at most 56.
    void put(std::uint64_t value, std::uint32_t bits) noexcept {
        held_ |= (value & ((std::uint64_t{1} << bits) - 1)) << n_held_;
        n_held_ += bits;
        while (n_held_ >= 8) flush_byte();
    }

    // Fills the last byte with zero bits and returns the end.
    std::uint8_t* finish() noexcept {
        if (n_held_ > 0) {
            n_held_ = 8;
            flush_byte();
        }
        return to_;
    }

private:
    void flush_byte() noexcept {
        *to_++ = static_cast<std::uint8_t>(held_);
        held_ >>= 8;
        n_held_ -= 8;
    }

    std::uint8_t* to_;
    std::uint64_t held_ = 0;
    std::uint32_t n_held_ = 0;
};

}  // namespace cellmill
