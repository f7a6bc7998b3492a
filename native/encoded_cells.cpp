#include "encoded_cells.hpp"

#include <memory>
#include <utility>

namespace cellmill {

EncodedCells::EncodedCells(Frames frames, std::uint32_t n_genes, const Model* head)
    : frames_(std::move(frames)), n_genes_(n_genes), head_(head), totals_(frames_.size()) {
    auto [fault, before] = nonzeros_before(frames_, n_genes, head);
    if (fault.fault != Fault::none) first_.note(fault);
    indptr_ = std::move(before);
}

std::pair<RowFault, Csr> EncodedCells::gather(std::size_t threads) {
    return gather_sparse(frames_, n_genes_, head_, nullptr, Kind::uint32, totals_.data(), threads);
}

CellWindow::CellWindow(const TokenCells& cells) : cells_(cells), columns_(cells.columns), counts_(cells.counts) {
    if (cells.encoded != nullptr) decoder_ = std::make_unique<Decoder>(cells.encoded->head_);
}

bool CellWindow::open(std::size_t begin, std::size_t end) {
    if (!decoder_) return true;
    EncodedCells& encoded = *cells_.encoded;
    if (encoded.first_.is_before(begin)) return false;
    first_ = cells_.begin(begin);
    const std::size_t entries = cells_.begin(end) - first_;
    if (own_columns_.size() < entries) {
        own_columns_.resize(entries);
        own_counts_.resize(entries);
    }
    columns_ = {own_columns_.data(), entries};
    counts_ = {own_counts_.data(), entries};
    for (std::size_t cell = begin; cell < end; ++cell) {
        fetch_ahead(encoded.frames_, cell);
        const Fault fault = decoder_->decode(encoded.frames_[cell], encoded.n_genes_, static_cast<std::uint32_t>(cells_.nnz(cell)),
                                             own_columns_.data() + at(cell), own_counts_.data() + at(cell), Kind::uint32, &encoded.totals_[cell]);
        if (fault == Fault::none) continue;
        encoded.first_.note({cell, fault});
        return false;
    }
    return true;
}

}  // namespace cellmill
