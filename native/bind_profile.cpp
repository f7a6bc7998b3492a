// Profiles for Python: dataclasses of kernel/profiles.py to the structs of profile.hpp.
#include "bind_tokens.hpp"

#include "bind_arrays.hpp"
#include "profile.hpp"

namespace cellmill {
namespace {

// Far beyond what a model has, and products with numbers of cells do not overflow.
constexpr std::size_t kMostTail = 1 << 10;
constexpr std::size_t kMostGenes = std::size_t{1} << 31;

ProfileRules to_rules(nb::handle rules) {
    ProfileRules made;
    made.values = static_cast<ProfileValues>(number<int>(rules, "values"));
    made.scale = number<double>(rules, "scale");
    made.of_kept = number<bool>(rules, "of_kept");
    made.clip = number<float>(rules, "clip");
    made.order = static_cast<ProfileOrder>(number<int>(rules, "order"));
    made.choose = static_cast<ProfileChoose>(number<int>(rules, "choose"));
    made.zeros = number<bool>(rules, "zeros");
    made.mask = number<double>(rules, "mask");
    made.hidden = number<double>(rules, "hidden");
    made.all_if_none = number<bool>(rules, "all_if_none");
    made.pad_token = number<std::int64_t>(rules, "pad_token");
    made.pad_value = number<float>(rules, "pad_value");
    if (!(made.mask >= 0.0 && made.mask <= 1.0 && made.hidden >= 0.0 && made.hidden <= 1.0))
        throw std::invalid_argument("mask and hidden must lie in 0..1");
    return made;
}

ProfilePlan to_plan(nb::handle plan, const TokenCells& cells, const ProfileRules& rules) {
    ProfilePlan made{entries<const std::int64_t>(plan, "room"),        entries<const double>(plan, "totals"),
                     entries<const double>(plan, "given"),             entries<const std::int64_t>(plan, "tail_tokens"),
                     entries<const float>(plan, "tail_values"),        entries<const std::uint8_t>(plan, "tail_shown"),
                     number<std::size_t>(plan, "n_tail")};
    const std::size_t n = cells.size();
    if (made.n_tail > kMostTail) throw std::invalid_argument("n_tail is too large");
    expect(made.room, n, "room");
    if (!made.totals.empty()) expect(made.totals, n, "totals");
    if (rules.values == ProfileValues::given) expect(made.given, cells.columns.size(), "given");
    expect(made.tail_tokens, n * made.n_tail, "tail_tokens");
    expect(made.tail_values, n * made.n_tail, "tail_values");
    expect(made.tail_shown, n * made.n_tail, "tail_shown");
    return made;
}

std::span<const std::uint64_t> drawn(nb::handle numbers, const char* name, std::size_t nnz) {
    const auto given = entries<const std::uint64_t>(numbers, name);
    if (!given.empty()) expect(given, nnz, name);
    return given;
}

template <class T>
T* wanted(std::span<T> array, std::size_t size, const char* name) {
    if (array.data() == nullptr) return nullptr;
    expect(array, size, name);
    return array.data();
}

ProfileOut to_out(nb::handle out, std::size_t cells) {
    ProfileOut made;
    const auto genes = entries<std::int64_t>(out, "genes");
    const std::size_t size = genes.size();
    made.starts = entries<const std::int64_t>(out, "starts");
    expect_starts(made.starts, cells, size, "starts");
    made.genes = genes.data();
    const auto values = entries<float>(out, "values");
    expect(values, size, "values");
    made.values = values.data();
    made.target = wanted(entries<float>(out, "target"), size, "target");
    made.mask = wanted(entries<std::uint8_t>(out, "mask"), size, "mask");
    made.hidden = wanted(entries<std::uint8_t>(out, "hidden"), size, "hidden");
    const auto lengths = entries<std::int64_t>(out, "lengths");
    expect(lengths, cells, "lengths");
    made.lengths = lengths.data();
    return made;
}

void tokenise(nb::handle cells, nb::handle rules, nb::handle plan, nb::handle numbers, nb::handle out, std::size_t threads) {
    const TokenCells given = token_cells(cells);
    const ProfileRules made = to_rules(rules);
    const ProfilePlan planned = to_plan(plan, given, made);
    const std::size_t nnz = given.columns.size();
    const ProfileNumbers numbered{drawn(numbers, "sample", nnz), drawn(numbers, "order", nnz), drawn(numbers, "mask", nnz)};
    const ProfileOut to = to_out(out, given.size());
    const nb::gil_scoped_release release;
    tokenise_profiles(given, made, planned, numbered, to, threads);
}

void fill_panel(nb::handle cells, nb::handle rows, std::size_t threads) {
    const TokenCells given = token_cells(cells);
    PanelRows made;
    made.totals = entries<const double>(rows, "totals");
    made.tail = entries<const float>(rows, "tail");
    made.n_genes = number<std::size_t>(rows, "n_genes");
    made.n_tail = number<std::size_t>(rows, "n_tail");
    made.scale = number<double>(rows, "scale");
    made.clip = number<float>(rows, "clip");
    const auto out = entries<float>(rows, "out");
    if (made.n_tail > kMostTail || made.n_genes > kMostGenes) throw std::invalid_argument("n_tail or n_genes is too large");
    expect(made.totals, given.size(), "totals");
    expect(made.tail, given.size() * made.n_tail, "tail");
    expect(out, given.size() * (made.n_genes + made.n_tail), "out");
    made.out = out.data();
    const nb::gil_scoped_release release;
    tokenise_panel(given, made, threads);
}

}  // namespace

void bind_profile(nb::module_& m) {
    using nb::arg;
    m.def("tokenise_profiles", &tokenise, arg("cells"), arg("rules"), arg("plan"), arg("numbers"), arg("out"), arg("threads"));
    m.def("tokenise_panel", &fill_panel, arg("cells"), arg("rows"), arg("threads"));
}

}  // namespace cellmill
