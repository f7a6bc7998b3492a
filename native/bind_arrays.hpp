// NumPy arrays to spans, for the bind_*.cpp files of recipes: attributes of a Python object, never converted or copied.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstddef>
#include <span>
#include <stdexcept>
#include <string>

#include "encoded_cells.hpp"
#include "tokens.hpp"

namespace cellmill {

namespace nb = nanobind;

template <class T>
using Array = nb::ndarray<T, nb::c_contig, nb::device::cpu>;

// Entries of an array attribute, whatever its shape; none where it is None. Throws std::invalid_argument for another dtype.
template <class T>
std::span<T> entries(nb::handle object, const char* name) {
    const nb::object value = nb::getattr(object, name);
    if (value.is_none()) return {};
    try {
        const auto array = nb::cast<Array<T>>(value, false);
        return {array.data(), array.size()};
    } catch (const nb::cast_error&) {
        throw std::invalid_argument(std::string(name) + " has another dtype, or is not contiguous");
    }
}

template <class T>
T number(nb::handle object, const char* name) {
    return nb::cast<T>(nb::getattr(object, name));
}

// The spans live as long as the Python object, whose arrays they are. Whoever takes cells checks them: it is a look at all.
// Where `encoded` is wanted, cells that were not decoded yet stay so; else asking for their columns decodes them.
inline TokenCells token_cells(nb::handle cells, bool encoded = false) {
    const nb::object later = nb::getattr(cells, "encoded");
    if (encoded && !later.is_none()) {
        EncodedCells& held = nb::cast<EncodedCells&>(nb::getattr(later, "made"));
        TokenCells made{held.indptr(), {}, {}, entries<const std::int64_t>(cells, "token_of"), entries<const std::uint64_t>(cells, "keys"), &held};
        if (made.token_of.size() != held.n_genes()) throw std::invalid_argument("token_of must have one entry for each gene of the store");
        if (held.fault().fault != Fault::none) throw std::invalid_argument("a frame of these cells is at fault");
        return made;
    }
    TokenCells made{entries<const std::int64_t>(cells, "indptr"), entries<const std::int32_t>(cells, "columns"),
                    entries<const std::uint32_t>(cells, "counts"), entries<const std::int64_t>(cells, "token_of"),
                    entries<const std::uint64_t>(cells, "keys")};
    return made;
}

// (row, fault) of the first cell that could not be decoded, or None.
inline nb::object fault_of(const TokenCells& cells) {
    const RowFault found = cells.encoded == nullptr ? RowFault{} : cells.encoded->fault();
    if (found.fault == Fault::none) return nb::none();
    return nb::make_tuple(found.row, static_cast<int>(found.fault));
}

// Throws unless an array has so many entries.
template <class T>
void expect(std::span<T> array, std::size_t size, const char* name) {
    if (array.size() != size)
        throw std::invalid_argument(std::string(name) + " must have " + std::to_string(size) + " entries, found " + std::to_string(array.size()));
}

// Throws unless rows start at 0, never fall and end where the array does.
inline void expect_starts(std::span<const std::int64_t> starts, std::size_t cells, std::size_t size, const char* name) {
    bool sound = starts.size() == cells + 1 && starts.front() == 0 && starts.back() == static_cast<std::int64_t>(size);
    for (std::size_t i = 0; sound && i + 1 < starts.size(); ++i) sound = starts[i] <= starts[i + 1];
    if (!sound) throw std::invalid_argument(std::string(name) + " must start at 0, never fall, and end at the size of the array");
}

}  // namespace cellmill
