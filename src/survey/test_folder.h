// A folder of its own on the disk, gone at the end, for the tests of this room.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace penstock::test {

class Folder {
 public:
  Folder() {
    std::string name = std::filesystem::temp_directory_path() / "survey-XXXXXX";
    path_ = ::mkdtemp(name.data());
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ / name; }
  void write(const std::string& name, const std::string& text) const {
    const std::filesystem::path path = path_ / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }

 private:
  std::filesystem::path path_;
};

}  // namespace penstock::test
