#include "core/page_pool.h"

#include <cassert>

namespace mla {

PagePool::PagePool(std::int64_t num_pages, std::int64_t page_tokens)
    : page_tokens_(page_tokens), available_(num_pages), pages_(num_pages) {
  for (std::int64_t page = 0; page < num_pages; ++page) {
    const auto id = static_cast<std::int32_t>(page);
    pages_[page].place = idle_.insert(idle_.end(), id);
    pages_[page].name = kUnnamed;
  }
}

std::int32_t PagePool::take() {
  assert(available_ > 0);
  const std::int32_t id = idle_.front();
  Page& page = pages_[id];
  if (page.entry) contents_.erase(*page.entry);
  page.entry.reset();
  page.name = kUnnamed;
  add_user(id);
  return id;
}

void PagePool::give_back(std::int32_t id) {
  Page& page = pages_[id];
  assert(page.users > 0);
  if (--page.users > 0) return;
  // What cannot be found is of no use to anyone: it goes before all others.
  page.place = idle_.insert(page.entry ? idle_.end() : idle_.begin(), id);
  ++available_;
}

void PagePool::add_user(std::int32_t id) {
  Page& page = pages_[id];
  if (page.users++ > 0) return;
  idle_.erase(page.place);
  --available_;
}

std::vector<std::int32_t> PagePool::find_prefix(std::span<const std::int32_t> tokens,
                                                std::int64_t prefill_end) {
  std::vector<std::int32_t> found;
  std::uint64_t parent = kRoot;
  const auto size = static_cast<std::size_t>(page_tokens_);
  for (; tokens.size() >= size; tokens = tokens.subspan(size), prefill_end -= page_tokens_) {
    const auto entry = contents_.find(
        {parent, prefill_end > 0, Contents(tokens.begin(), tokens.begin() + page_tokens_)});
    if (entry == contents_.end()) break;
    add_user(entry->second);
    found.push_back(entry->second);
    parent = pages_[entry->second].name;
  }
  return found;
}

void PagePool::publish(std::int32_t id, std::optional<std::int32_t> parent,
                       std::span<const std::int32_t> tokens, bool is_prefill) {
  Page& page = pages_[id];
  assert(page.users > 0 && std::ssize(tokens) == page_tokens_);
  const std::uint64_t parent_name = parent ? pages_[*parent].name : kRoot;
  assert(parent_name != kUnnamed);
  const auto [entry, is_new] =
      contents_.try_emplace({parent_name, is_prefill, Contents(tokens.begin(), tokens.end())}, id);
  if (is_new) {
    page.entry = entry;
    page.name = next_name_++;
  } else {
    page.name = pages_[entry->second].name;
  }
}

}  // namespace mla
