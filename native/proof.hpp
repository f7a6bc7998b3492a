// Stored values as counts, and the proof that they are counts: finite, whole, not negative, at most 2^32 - 1.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

namespace cellmill {

// Whether one value is a count.
template <class Value>
bool is_count(Value value) noexcept {
    if constexpr (std::is_floating_point_v<Value>)
        return value >= 0 && value < static_cast<Value>(4294967296.0) && std::floor(value) == value;  // NaN fails both.
    else if constexpr (std::is_signed_v<Value>)
        return value >= 0 && static_cast<std::uint64_t>(value) <= std::numeric_limits<std::uint32_t>::max();
    else
        return std::uint64_t{value} <= std::numeric_limits<std::uint32_t>::max();
}

template <class Value>
bool prove_each(const Value* values, std::size_t size, std::uint32_t* counts) noexcept {
    for (std::size_t j = 0; j < size; ++j) {
        if (!is_count(values[j])) return false;
        counts[j] = static_cast<std::uint32_t>(values[j]);
    }
    return true;
}

// Four floats at a time, as long as all are below 2^31; returns how many were proven and written.
inline std::size_t prove_floats(const float* values, std::size_t size, std::uint32_t* counts) noexcept {
    typedef float Floats __attribute__((vector_size(16)));
    typedef std::int32_t Ints __attribute__((vector_size(16)));
    std::size_t done = 0;
    for (; done + 16 <= size; done += 16) {
        Ints sound = {-1, -1, -1, -1};
        for (std::size_t part = 0; part < 16; part += 4) {
            Floats value;
            std::memcpy(&value, values + done + part, sizeof value);
            // What is outside is made 0 before it is converted, which is defined for what fits alone.
            const Ints inside = (value >= 0.0F) & (value < 2147483648.0F);
            const Ints whole = __builtin_convertvector((Floats)((Ints)value & inside), Ints);
            sound &= inside & (__builtin_convertvector(whole, Floats) == value);
            std::memcpy(counts + done + part, &whole, sizeof whole);
        }
        if ((sound[0] & sound[1] & sound[2] & sound[3]) == 0) break;
    }
    return done;
}

// Writes `size` counts; false when a value is none, and what was written is then undefined.
template <class Value>
bool prove_counts(const Value* values, std::size_t size, std::uint32_t* counts) noexcept {
    if constexpr (std::is_same_v<Value, float>) {
        const std::size_t done = prove_floats(values, size, counts);
        return prove_each(values + done, size - done, counts + done);
    } else if constexpr (std::is_floating_point_v<Value>) {
        return prove_each(values, size, counts);
    } else {
        // Without a branch, for the vectoriser. What a narrow number turns into says whether it was negative.
        std::uint64_t high = 0;
        for (std::size_t j = 0; j < size; ++j) {
            const std::uint64_t wide = static_cast<std::uint64_t>(values[j]);
            high |= wide;
            counts[j] = static_cast<std::uint32_t>(wide);
        }
        return high >> 32 == 0;
    }
}

}  // namespace cellmill
