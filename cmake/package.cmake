# What is installed beside the program, and the Debian package made of it (scripts/package).
#
# The manual pages and the completions are printed by the program itself, from the one table of options.
include(GNUInstallDirs)

set(texts ${PROJECT_BINARY_DIR}/package)
install(CODE "
  file(MAKE_DIRECTORY ${texts}/man1)
  foreach(text \"help;--man;man1/penstock.1\" \"completions;bash;penstock\" \"completions;zsh;_penstock\"
               \"completions;fish;penstock.fish\")
    list(GET text 0 1 command)
    list(GET text 2 name)
    execute_process(COMMAND $<TARGET_FILE:penstock> \${command} OUTPUT_FILE ${texts}/\${name}
                    COMMAND_ERROR_IS_FATAL ANY)
  endforeach()
  execute_process(COMMAND $<TARGET_FILE:penstock> help --json OUTPUT_VARIABLE verbs COMMAND_ERROR_IS_FATAL ANY)
  string(JSON count LENGTH \"\${verbs}\" verbs)
  math(EXPR last \"\${count} - 1\")
  foreach(i RANGE \${last})
    string(JSON verb GET \"\${verbs}\" verbs \${i} name)
    execute_process(COMMAND $<TARGET_FILE:penstock> help --man \${verb}
                    OUTPUT_FILE ${texts}/man1/penstock-\${verb}.1 COMMAND_ERROR_IS_FATAL ANY)
  endforeach()
  file(GLOB pages ${texts}/man1/*.1)
  execute_process(COMMAND gzip -9nf \${pages} COMMAND_ERROR_IS_FATAL ANY)
")
install(DIRECTORY ${texts}/man1 DESTINATION ${CMAKE_INSTALL_MANDIR} FILES_MATCHING PATTERN *.gz)
install(FILES ${texts}/penstock DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES ${texts}/_penstock DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions)
install(FILES ${texts}/penstock.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
install(FILES packaging/penstock@.service DESTINATION lib/systemd/system)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME copyright)
install(FILES README.md docs/server.md DESTINATION ${CMAKE_INSTALL_DOCDIR})

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME penstock)
set(CPACK_PACKAGE_CONTACT "penstock maintainers <maintainers@penstock.invalid>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "runs Mixture-of-Experts models that are larger than memory")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "libcurl4, libssl3")  # opened by `pull` (src/hub/late_libraries.h)
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION
  "penstock answers with language models whose routed experts are streamed from flash.\nIt has a command line, a chat, and a server that speaks the APIs of OpenAI,\nAnthropic and Ollama.")
include(CPack)
