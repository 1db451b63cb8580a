# find_package(cdp): the targets cdp::cdp (shared) and cdp::cdp_static.
get_filename_component(_cdp_lib "${CMAKE_CURRENT_LIST_DIR}/../.." ABSOLUTE)
# Headers lie beside the library directory, whatever its name.
find_path(_cdp_include cdp.h HINTS "${_cdp_lib}/../include" "${_cdp_lib}/../../include" NO_DEFAULT_PATH NO_CACHE)
if(NOT _cdp_include)
  set(cdp_FOUND FALSE)
  set(cdp_NOT_FOUND_MESSAGE "cdp.h is not beside ${_cdp_lib}")
  return()
endif()

if(NOT TARGET cdp::cdp)
  add_library(cdp::cdp SHARED IMPORTED)
  set_target_properties(cdp::cdp PROPERTIES
    IMPORTED_LOCATION "${_cdp_lib}/libcdp.so"
    IMPORTED_SONAME "libcdp.so.1"
    INTERFACE_INCLUDE_DIRECTORIES "${_cdp_include}")
  add_library(cdp::cdp_static STATIC IMPORTED)
  set_target_properties(cdp::cdp_static PROPERTIES
    IMPORTED_LOCATION "${_cdp_lib}/libcdp.a"
    INTERFACE_INCLUDE_DIRECTORIES "${_cdp_include}"
    INTERFACE_LINK_LIBRARIES "gcc_s;util;rt;pthread;m;dl")
endif()
