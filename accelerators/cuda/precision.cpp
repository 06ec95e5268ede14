#include <loom/accelerators/cuda/precision.h>

#include <cstdlib>
#include <string_view>

#include <loom/accelerators/cuda/device.h>

namespace loom::cuda {

namespace {

bool is_set(const char* name, std::string_view value) {
  const char* const text = std::getenv(name);
  return text != nullptr && text == value;
}

}  // namespace

std::atomic<bool>& allows_tf32() {
  static std::atomic<bool> allowed = is_set("LOOM_TF32", "1");
  return allowed;
}

std::atomic<bool>& allows_any_order() {
  static std::atomic<bool> allowed = is_set("LOOM_DETERMINISTIC", "0");
  return allowed;
}

std::atomic<bool>& autotunes() {
  static std::atomic<bool> wanted = is_set("LOOM_AUTOTUNE", "1");
  return wanted;
}

std::atomic<Epilogues>& epilogues() {
  static std::atomic<Epilogues> chosen = is_set("LOOM_EPILOGUES", "1")   ? Epilogues::on
                                         : is_set("LOOM_EPILOGUES", "0") ? Epilogues::off
                                                                         : Epilogues::by_device;
  return chosen;
}

bool uses_epilogues(const Gpu& gpu) {
  const Epilogues chosen = epilogues();
  return chosen == Epilogues::by_device ? gpu.properties().major >= 9 : chosen == Epilogues::on;
}

}  // namespace loom::cuda
