#include "gather.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <stdexcept>
#include <string>

#include "parallel.hpp"
#include "random.hpp"

namespace cellmill {
namespace {

// Work that pays for starting a thread.
constexpr std::uint64_t kLeastNonzeros = 20'000;

// Nonzeros before each row, up to the first row that cannot be read; `upto.size() - 1` rows are worth decoding.
struct Sizes {
    std::vector<std::int64_t> upto;
    RowFault fault;
};

Sizes read_sizes(const Frames& frames, std::uint32_t n_genes) {
    Sizes sizes;
    sizes.upto.reserve(frames.size() + 1);
    sizes.upto.push_back(0);
    for (std::size_t row = 0; row < frames.size(); ++row) {
        std::uint32_t nnz = 0;
        const Fault fault =
            frames[row].data() == nullptr ? Fault::outside : peek_nonzeros(frames[row], n_genes, nnz);
        if (fault != Fault::none) {
            sizes.fault = {row, fault};
            break;
        }
        sizes.upto.push_back(sizes.upto.back() + nnz);
    }
    return sizes;
}

RowFault first_fault(const std::vector<RowFault>& faults, RowFault later) {
    for (const RowFault& fault : faults)
        if (fault.fault != Fault::none) return fault;
    return later;
}

std::uint32_t row_size(const Sizes& sizes, std::size_t row) {
    return static_cast<std::uint32_t>(sizes.upto[row + 1] - sizes.upto[row]);
}

// Puts the columns of one row in order without comparing them: a bitmap of columns, and the counts by column.
class ColumnSorter {
public:
    explicit ColumnSorter(const Panel& panel, std::uint32_t n_genes) : panel_(panel) {
        std::int32_t last = -1;
        for (std::uint32_t gene = 0; gene < n_genes && ascending_; ++gene) {
            const std::int32_t column = panel.column_of[gene];
            if (column < 0) continue;
            ascending_ = column > last;
            last = column;
        }
        if (ascending_) return;
        marks_.resize((panel.n_columns + 63) / 64);
        by_column_.resize(panel.n_columns);
    }

    // Writes the columns and counts of the kept genes and returns how many they are.
    std::size_t map(const std::int32_t* genes, const std::uint32_t* counts, std::uint32_t size, std::int32_t* columns,
                    std::uint32_t* values) {
        std::size_t kept = 0;
        if (ascending_) {
            for (std::uint32_t j = 0; j < size; ++j) {
                const std::int32_t column = panel_.column_of[genes[j]];
                columns[kept] = column;
                values[kept] = counts[j];
                kept += column >= 0;
            }
            return kept;
        }
        for (std::uint32_t j = 0; j < size; ++j) {
            const std::uint32_t column = static_cast<std::uint32_t>(panel_.column_of[genes[j]]);
            if (column >= panel_.n_columns) continue;  // -1, as an unsigned number, too.
            marks_[column / 64] |= std::uint64_t{1} << (column % 64);
            by_column_[column] = counts[j];
        }
        for (std::size_t word = 0; word < marks_.size(); ++word) {
            for (std::uint64_t left = marks_[word]; left != 0; left &= left - 1) {
                const std::size_t column = word * 64 + static_cast<std::size_t>(std::countr_zero(left));
                columns[kept] = static_cast<std::int32_t>(column);
                values[kept++] = by_column_[column];
            }
            marks_[word] = 0;
        }
        return kept;
    }

private:
    Panel panel_;
    bool ascending_ = true;
    std::vector<std::uint64_t> marks_;
    std::vector<std::uint32_t> by_column_;
};

Csr gather_whole(const Frames& frames, std::uint32_t n_genes, const Sizes& sizes, std::size_t threads,
                 std::vector<RowFault>& faults) {
    const std::size_t rows = sizes.upto.size() - 1;
    const std::size_t nnz = static_cast<std::size_t>(sizes.upto.back());
    Csr csr{Buffer<std::int64_t>(rows + 1), Buffer<std::int32_t>(nnz), Buffer<std::uint32_t>(nnz)};
    std::copy(sizes.upto.begin(), sizes.upto.end(), csr.indptr.data());
    const std::vector<std::size_t> borders = share_work(sizes.upto, threads, kLeastNonzeros);
    faults.resize(borders.size() - 1);
    run_workers(borders.size() - 1, [&](std::size_t worker) {
        Decoder decoder;
        for (std::size_t row = borders[worker]; row < borders[worker + 1]; ++row) {
            const std::int64_t at = sizes.upto[row];
            const Fault fault =
                decoder.decode(frames[row], n_genes, row_size(sizes, row), csr.indices.data() + at, csr.values.data() + at);
            if (fault == Fault::none) continue;
            faults[worker] = {row, fault};
            break;
        }
    });
    return csr;
}

// One worker's rows after the panel.
struct Share {
    std::vector<std::int64_t> kept;
    std::vector<Buffer<std::int32_t>> columns;
    std::vector<Buffer<std::uint32_t>> values;
};

Csr join_shares(const std::vector<Share>& shares, std::size_t rows) {
    Buffer<std::int64_t> indptr(rows + 1);
    std::int64_t* to = indptr.data();
    *to = 0;
    for (const Share& share : shares)
        for (const std::int64_t kept : share.kept) {
            to[1] = to[0] + kept;
            ++to;
        }
    const std::size_t nnz = static_cast<std::size_t>(*to);
    Csr csr{std::move(indptr), Buffer<std::int32_t>(nnz), Buffer<std::uint32_t>(nnz)};
    std::size_t at = 0;
    for (const Share& share : shares) {
        std::size_t size = 0;
        for (const std::int64_t kept : share.kept) size += static_cast<std::size_t>(kept);
        if (size == 0) continue;
        std::copy_n(share.columns.front().data(), size, csr.indices.data() + at);
        std::copy_n(share.values.front().data(), size, csr.values.data() + at);
        at += size;
    }
    return csr;
}

Csr gather_panel(const Frames& frames, std::uint32_t n_genes, const Panel& panel, const Sizes& sizes,
                 std::size_t threads, std::vector<RowFault>& faults) {
    const std::vector<std::size_t> borders = share_work(sizes.upto, threads, kLeastNonzeros);
    const std::size_t workers = borders.size() - 1;
    faults.resize(workers);
    std::vector<Share> shares(workers);
    run_workers(workers, [&](std::size_t worker) {
        Decoder decoder;
        ColumnSorter sorter(panel, n_genes);
        Share& share = shares[worker];
        std::uint32_t widest = 0;
        for (std::size_t row = borders[worker]; row < borders[worker + 1]; ++row)
            widest = std::max(widest, row_size(sizes, row));
        std::vector<std::int32_t> genes(widest);
        std::vector<std::uint32_t> counts(widest);
        // One entry more than needed: the branch-free filter writes before it knows whether to keep.
        const std::size_t room =
            static_cast<std::size_t>(sizes.upto[borders[worker + 1]] - sizes.upto[borders[worker]]) + 1;
        share.columns.emplace_back(room);
        share.values.emplace_back(room);
        std::size_t at = 0;
        for (std::size_t row = borders[worker]; row < borders[worker + 1]; ++row) {
            const std::uint32_t size = row_size(sizes, row);
            const Fault fault = decoder.decode(frames[row], n_genes, size, genes.data(), counts.data());
            if (fault != Fault::none) {
                faults[worker] = {row, fault};
                return;
            }
            const std::size_t kept = sorter.map(genes.data(), counts.data(), size, share.columns.front().data() + at,
                                                share.values.front().data() + at);
            share.kept.push_back(static_cast<std::int64_t>(kept));
            at += kept;
        }
    });
    std::size_t rows = 0;
    for (const Share& share : shares) rows += share.kept.size();
    return join_shares(shares, rows);
}

// Turns counts of one cell into floats; small counts, nearly all of them, are looked up.
class Scaler {
public:
    Scaler(Transform transform, std::uint64_t total) noexcept : transform_(transform) {
        if (transform_ == Transform::raw) return;
        scale_ = total > 0 ? 1e4 / static_cast<double>(total) : 0.0;
        for (std::uint32_t count = 0; count < small_.size(); ++count) small_[count] = compute(count);
    }

    float operator()(std::uint32_t count) const noexcept {
        if (transform_ == Transform::raw) return static_cast<float>(count);
        return count < small_.size() ? small_[count] : compute(count);
    }

private:
    float compute(std::uint32_t count) const noexcept {
        const double scaled = static_cast<double>(count) * scale_;
        return static_cast<float>(transform_ == Transform::log1p_cp10k ? std::log1p(scaled) : scaled);
    }

    Transform transform_;
    double scale_ = 0.0;
    std::array<float, 16> small_{};
};

[[noreturn]] void refuse_cell(std::size_t cell, std::size_t nonzero, std::int64_t n_genes) {
    throw std::invalid_argument("cell " + std::to_string(cell) + ": genes must be ascending, each once, in 0.." +
                                std::to_string(n_genes - 1) + ", and counts must be 1 or more; nonzero " +
                                std::to_string(nonzero) + " is not");
}

void check_indptr(std::span<const std::int64_t> indptr, std::size_t nnz) {
    bool sound = !indptr.empty() && indptr.front() == 0 && indptr.back() == static_cast<std::int64_t>(nnz);
    for (std::size_t cell = 0; sound && cell + 1 < indptr.size(); ++cell) sound = indptr[cell] <= indptr[cell + 1];
    if (!sound) throw std::invalid_argument("indptr must start at 0, never fall, and end at the number of nonzeros");
}

template <class Gene>
void check_cell(std::size_t cell, std::span<const Gene> genes, std::span<const std::uint32_t> counts,
                std::int64_t n_genes) {
    std::int64_t least = 0;
    for (std::size_t j = 0; j < genes.size(); ++j) {
        if (genes[j] < least || genes[j] >= n_genes || counts[j] == 0) refuse_cell(cell, j, n_genes);
        least = std::int64_t{genes[j]} + 1;
    }
}

}  // namespace

template <class Gene>
Encoded encode_cells(std::span<const std::int64_t> indptr, std::span<const Gene> genes,
                     std::span<const std::uint32_t> counts, std::int64_t n_genes, std::size_t threads) {
    check_indptr(indptr, genes.size());
    const std::size_t cells = indptr.size() - 1;
    const std::vector<std::int64_t> upto(indptr.begin(), indptr.end());
    const std::vector<std::size_t> borders = share_work(upto, threads, kLeastNonzeros);
    Encoded encoded;
    encoded.parts.resize(borders.size() - 1);
    encoded.offsets.assign(cells + 1, 0);
    run_workers(borders.size() - 1, [&](std::size_t worker) {
        std::vector<std::uint8_t>& out = encoded.parts[worker];
        out.reserve(static_cast<std::size_t>(upto[borders[worker + 1]] - upto[borders[worker]]));
        for (std::size_t cell = borders[worker]; cell < borders[worker + 1]; ++cell) {
            const std::size_t at = static_cast<std::size_t>(upto[cell]);
            const std::size_t size = static_cast<std::size_t>(upto[cell + 1]) - at;
            check_cell(cell, genes.subspan(at, size), counts.subspan(at, size), n_genes);
            encode_cell(genes.subspan(at, size), counts.subspan(at, size), out);
            encoded.offsets[cell + 1] = out.size();
        }
    });
    std::uint64_t before = 0;
    for (std::size_t worker = 0; worker < encoded.parts.size(); ++worker) {
        for (std::size_t cell = borders[worker]; cell < borders[worker + 1]; ++cell) encoded.offsets[cell + 1] += before;
        before += encoded.parts[worker].size();
    }
    return encoded;
}

std::pair<RowFault, Csr> gather_sparse(const Frames& frames, std::uint32_t n_genes, const Panel& panel,
                                       std::size_t threads) {
    const Sizes sizes = read_sizes(frames, n_genes);
    std::vector<RowFault> faults;
    Csr csr = panel.column_of == nullptr ? gather_whole(frames, n_genes, sizes, threads, faults)
                                         : gather_panel(frames, n_genes, panel, sizes, threads, faults);
    return {first_fault(faults, sizes.fault), std::move(csr)};
}

RowFault gather_dense(const Frames& frames, std::uint32_t n_genes, const Panel& panel, Transform transform,
                      const std::uint64_t* totals, float* out, std::size_t threads) {
    const Sizes sizes = read_sizes(frames, n_genes);
    const std::vector<std::size_t> borders = share_work(sizes.upto, threads, kLeastNonzeros);
    std::vector<RowFault> faults(borders.size() - 1);
    run_workers(borders.size() - 1, [&](std::size_t worker) {
        Decoder decoder;
        std::vector<std::int32_t> genes;
        std::vector<std::uint32_t> counts;
        for (std::size_t row = borders[worker]; row < borders[worker + 1]; ++row) {
            const std::uint32_t size = row_size(sizes, row);
            if (genes.size() < size) {
                genes.resize(size);
                counts.resize(size);
            }
            const Fault fault = decoder.decode(frames[row], n_genes, size, genes.data(), counts.data());
            if (fault != Fault::none) {
                faults[worker] = {row, fault};
                return;
            }
            std::uint64_t total = 0;
            if (totals != nullptr)
                total = totals[row];
            else if (transform != Transform::raw)
                for (std::uint32_t j = 0; j < size; ++j) total += counts[j];
            const Scaler scaled(transform, total);
            float* to = out + row * panel.n_columns;
            std::fill_n(to, panel.n_columns, 0.0F);
            for (std::uint32_t j = 0; j < size; ++j) {
                const std::size_t column = static_cast<std::size_t>(
                    panel.column_of == nullptr ? genes[j] : panel.column_of[genes[j]]);
                if (column < panel.n_columns) to[column] = scaled(counts[j]);  // -1 is beyond any column.
            }
        }
    });
    return first_fault(faults, sizes.fault);
}

template <class Gene>
void fingerprint_cells(std::span<const std::int64_t> indptr, std::span<const Gene> genes,
                       std::span<const std::uint32_t> counts, std::span<const std::uint64_t> gene_hashes,
                       std::uint64_t* out, std::size_t threads) {
    check_indptr(indptr, genes.size());
    const std::vector<std::int64_t> upto(indptr.begin(), indptr.end());
    const std::vector<std::size_t> borders = share_work(upto, threads, kLeastNonzeros);
    run_workers(borders.size() - 1, [&](std::size_t worker) {
        for (std::size_t cell = borders[worker]; cell < borders[worker + 1]; ++cell) {
            std::uint64_t sum = 0;
            std::uint64_t total = 0;
            for (std::size_t j = static_cast<std::size_t>(upto[cell]); j < static_cast<std::size_t>(upto[cell + 1]); ++j) {
                const std::size_t gene = static_cast<std::size_t>(genes[j]);
                if (gene >= gene_hashes.size()) throw std::invalid_argument("a gene has no hash");
                sum += mix64(gene_hashes[gene] ^ mix64(counts[j]));
                total += counts[j];
            }
            const std::uint64_t nnz = static_cast<std::uint64_t>(upto[cell + 1] - upto[cell]);
            out[cell] = mix64(sum ^ mix64(nnz ^ mix64(total)));
        }
    });
}

template Encoded encode_cells(std::span<const std::int64_t>, std::span<const std::int32_t>,
                              std::span<const std::uint32_t>, std::int64_t, std::size_t);
template Encoded encode_cells(std::span<const std::int64_t>, std::span<const std::int64_t>,
                              std::span<const std::uint32_t>, std::int64_t, std::size_t);
template void fingerprint_cells(std::span<const std::int64_t>, std::span<const std::int32_t>,
                                std::span<const std::uint32_t>, std::span<const std::uint64_t>, std::uint64_t*,
                                std::size_t);
template void fingerprint_cells(std::span<const std::int64_t>, std::span<const std::int64_t>,
                                std::span<const std::uint32_t>, std::span<const std::uint64_t>, std::uint64_t*,
                                std::size_t);

}  // namespace cellmill
