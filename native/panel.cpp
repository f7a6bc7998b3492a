#include "panel.hpp"

#include <stdexcept>
#include <string>

#include "codec.hpp"

namespace cellmill {

Panel::Panel(std::span<const std::int32_t> column_of, std::size_t n_columns)
    : column_of_(column_of.begin(), column_of.end()), bits_(gene_bit_words(column_of.size())), n_columns_(n_columns) {
    std::vector<bool> taken(n_columns);
    std::int32_t last = -1;
    for (std::size_t gene = 0; gene < column_of_.size(); ++gene) {
        const std::int32_t column = column_of_[gene];
        if (column == -1) continue;
        if (column < 0 || static_cast<std::size_t>(column) >= n_columns || taken[static_cast<std::size_t>(column)])
            throw std::invalid_argument("gene " + std::to_string(gene) + " of the panel goes to column " +
                                        std::to_string(column) + ", which is out of range or taken");
        taken[static_cast<std::size_t>(column)] = true;
        bits_[gene / 32] |= std::uint32_t{1} << (gene % 32);
        ascending_ = ascending_ && column > last;
        last = column;
        ++size_;
    }
}

}  // namespace cellmill
