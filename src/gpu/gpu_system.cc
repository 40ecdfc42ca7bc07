#include "gpu/gpu_system.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>

#include "gpu/gpu_error.h"
#include "gpu/gpu_requirements.h"
#include "gpu/vulkan_library.h"

namespace penstock {
namespace {

constexpr const char* kValidationLayer = "VK_LAYER_KHRONOS_validation";

VKAPI_ATTR VkBool32 VKAPI_CALL note_complaint(VkDebugUtilsMessageSeverityFlagBitsEXT,
                                              VkDebugUtilsMessageTypeFlagsEXT,
                                              const VkDebugUtilsMessengerCallbackDataEXT* data,
                                              void* complaints) {
  static_cast<std::vector<std::string>*>(complaints)->push_back(data->pMessage);
  return VK_FALSE;
}

std::string lower_case(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower;
}

bool has_layer(PFN_vkGetInstanceProcAddr get_function, const char* name) {
  const auto list = reinterpret_cast<PFN_vkEnumerateInstanceLayerProperties>(
      get_function(nullptr, "vkEnumerateInstanceLayerProperties"));
  uint32_t count = 0;
  if (list == nullptr || list(&count, nullptr) != VK_SUCCESS) return false;
  std::vector<VkLayerProperties> layers(count);
  if (list(&count, layers.data()) < VK_SUCCESS) return false;
  return std::any_of(layers.begin(), layers.end(), [&](const VkLayerProperties& layer) {
    return std::string_view(layer.layerName) == name;
  });
}

}  // namespace

Result<std::unique_ptr<GpuSystem>> GpuSystem::open(const GpuSystemOptions& options) {
  void* const loader = PENSTOCK_TRY(open_vulkan_library());
  std::unique_ptr<GpuSystem> system(new GpuSystem);
  PENSTOCK_TRY(system->create_instance(loader, options));
  PENSTOCK_TRY(system->list_devices());
  return system;
}

Result<void> GpuSystem::create_instance(void* loader, const GpuSystemOptions& options) {
  get_function_ = reinterpret_cast<PFN_vkGetInstanceProcAddr>(loader);
  const auto version = reinterpret_cast<PFN_vkEnumerateInstanceVersion>(
      get_function_(nullptr, "vkEnumerateInstanceVersion"));
  uint32_t api = VK_API_VERSION_1_0;
  if (version == nullptr || version(&api) != VK_SUCCESS || api < VK_API_VERSION_1_3) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("the loader of Vulkan is of version {}.{}, 1.3 is needed",
                             VK_API_VERSION_MAJOR(api), VK_API_VERSION_MINOR(api))};
  }
  const VkApplicationInfo application = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                         .pNext = nullptr,
                                         .pApplicationName = "penstock",
                                         .applicationVersion = 0,
                                         .pEngineName = nullptr,
                                         .engineVersion = 0,
                                         .apiVersion = VK_API_VERSION_1_3};
  const VkValidationFeatureEnableEXT checks[] = {
      VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT};
  VkValidationFeaturesEXT features = {};
  features.sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT;
  features.enabledValidationFeatureCount = 1;
  features.pEnabledValidationFeatures = checks;
  may_listen_ = options.validate && has_layer(get_function_, kValidationLayer);
  const char* const extensions[] = {VK_EXT_DEBUG_UTILS_EXTENSION_NAME};
  VkInstanceCreateInfo info = {};
  info.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO;
  info.pApplicationInfo = &application;
  if (may_listen_) {
    info.pNext = &features;
    info.enabledLayerCount = 1;
    info.ppEnabledLayerNames = &kValidationLayer;
    info.enabledExtensionCount = 1;
    info.ppEnabledExtensionNames = extensions;
  }
  const auto create =
      reinterpret_cast<PFN_vkCreateInstance>(get_function_(nullptr, "vkCreateInstance"));
  const VkResult result = create(&info, nullptr, &instance_);
  if (result == VK_ERROR_INCOMPATIBLE_DRIVER) {
    return Error{ErrorCode::kUnsupported,
                 "Vulkan finds no driver of a GPU that starts (docs/gpu.md, 'no driver', for "
                 "machines without a screen)"};
  }
  PENSTOCK_TRY(gpu_check(result, "starting Vulkan"));
#define PENSTOCK_LOAD(call)                                                               \
  functions_.call = reinterpret_cast<PFN_vk##call>(get_function_(instance_, "vk" #call)); \
  if (functions_.call == nullptr) {                                                       \
    return Error{ErrorCode::kUnsupported, "the loader of Vulkan has no vk" #call};        \
  }
  PENSTOCK_VULKAN_OF_INSTANCE(PENSTOCK_LOAD)
#undef PENSTOCK_LOAD
  if (may_listen_) listen();
  return {};
}

void GpuSystem::listen() {
  const auto create = reinterpret_cast<PFN_vkCreateDebugUtilsMessengerEXT>(
      get_function_(instance_, "vkCreateDebugUtilsMessengerEXT"));
  if (create == nullptr) return;
  VkDebugUtilsMessengerCreateInfoEXT info = {};
  info.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT;
  info.messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT |
                         VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT;
  info.messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_GENERAL_BIT_EXT |
                     VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT |
                     VK_DEBUG_UTILS_MESSAGE_TYPE_PERFORMANCE_BIT_EXT;
  info.pfnUserCallback = note_complaint;
  info.pUserData = &complaints_;
  if (create(instance_, &info, nullptr, &messenger_) != VK_SUCCESS) messenger_ = VK_NULL_HANDLE;
}

Result<void> GpuSystem::list_devices() {
  uint32_t count = 0;
  PENSTOCK_TRY(
      gpu_check(functions_.EnumeratePhysicalDevices(instance_, &count, nullptr), "listing GPUs"));
  physical_.resize(count);
  PENSTOCK_TRY(gpu_check(functions_.EnumeratePhysicalDevices(instance_, &count, physical_.data()),
                         "listing GPUs"));
  physical_.resize(count);
  for (size_t i = 0; i < physical_.size(); ++i) {
    devices_.push_back(gpu_facts(functions_, physical_[i]));
    devices_.back().index = static_cast<int>(i);
  }
  return {};
}

GpuSystem::~GpuSystem() {
  if (is_abandoned_) return;
  if (messenger_ != VK_NULL_HANDLE) {
    const auto destroy = reinterpret_cast<PFN_vkDestroyDebugUtilsMessengerEXT>(
        get_function_(instance_, "vkDestroyDebugUtilsMessengerEXT"));
    if (destroy != nullptr) destroy(instance_, messenger_, nullptr);
  }
  if (functions_.DestroyInstance != nullptr) functions_.DestroyInstance(instance_, nullptr);
}

namespace {

std::string names_of(const std::vector<GpuFacts>& devices) {
  if (devices.empty()) return "this machine has none";
  std::string text = "this machine has";
  for (const GpuFacts& gpu : devices) {
    text += fmt::format("{} {} \"{}\"", gpu.index == 0 ? "" : ",", gpu.index, gpu.name);
  }
  return text;
}

}  // namespace

Result<int> GpuSystem::find(std::string_view name) const {
  int number = -1;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  const bool is_number = error == std::errc() && end == name.data() + name.size();
  std::vector<int> found;
  for (const GpuFacts& gpu : devices_) {
    const bool is_named = lower_case(gpu.name).find(lower_case(name)) != std::string::npos;
    if (is_number ? gpu.index == number : !name.empty() && is_named) found.push_back(gpu.index);
  }
  if (found.empty()) {
    return Error{ErrorCode::kNotFound,
                 fmt::format("no GPU is called \"{}\"; {}", name, names_of(devices_))};
  }
  if (found.size() > 1) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("several GPUs are called \"{}\"; give a number: {}", name, names_of(devices_))};
  }
  const GpuFacts& gpu = devices_[static_cast<size_t>(found.front())];
  if (gpu.is_usable()) return gpu.index;
  return Error{ErrorCode::kUnsupported, fmt::format("{}: {}", gpu.name, gpu.refusal)};
}

Result<int> GpuSystem::choose() const {
  const auto rank = [](const GpuFacts& gpu) {
    return gpu.kind == GpuKind::kDiscrete ? 2 : gpu.kind == GpuKind::kIntegrated ? 1 : 0;
  };
  const GpuFacts* best = nullptr;
  for (const GpuFacts& gpu : devices_) {
    if (!gpu.is_usable() || gpu.kind == GpuKind::kSoftware) continue;
    const bool is_better = best == nullptr || rank(gpu) > rank(*best) ||
                           (rank(gpu) == rank(*best) && gpu.memory_bytes > best->memory_bytes);
    if (is_better) best = &gpu;
  }
  if (best != nullptr) return best->index;
  return Error{ErrorCode::kNotFound, fmt::format("no GPU can be used; {}", names_of(devices_))};
}

}  // namespace penstock
