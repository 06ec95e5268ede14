#include <loom/accelerators/cuda/dnn_functions.h>

#include <dlfcn.h>

#include <loom/accelerators/error.h>

namespace loom::cuda {

namespace {

// The major version that Loom was built with: its numbers and functions are that version's.
DnnFunctions loaded() {
  DnnFunctions out;
  const std::string name = str("libcudnn.so.", CUDNN_MAJOR);
  void* const library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* const why = dlerror();
    out.missing = why != nullptr ? why : name;
    return out;
  }
  const auto find = [&]<class F>(F& function, const char* symbol) {
    function = reinterpret_cast<F>(dlsym(library, symbol));
    if (function == nullptr) out.missing = str(name, " has no ", symbol);
  };
  find(out.version, "cudnnGetVersion");
  find(out.error_string, "cudnnGetErrorString");
  find(out.create, "cudnnCreate");
  find(out.set_stream, "cudnnSetStream");
  find(out.create_descriptor, "cudnnBackendCreateDescriptor");
  find(out.destroy_descriptor, "cudnnBackendDestroyDescriptor");
  find(out.finalize, "cudnnBackendFinalize");
  find(out.set_attribute, "cudnnBackendSetAttribute");
  find(out.get_attribute, "cudnnBackendGetAttribute");
  find(out.execute, "cudnnBackendExecute");
  return out;
}

}  // namespace

const DnnFunctions& dnn() {
  static const DnnFunctions functions = loaded();
  return functions;
}

}  // namespace loom::cuda
