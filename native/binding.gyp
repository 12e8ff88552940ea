{
  'targets': [
    {
      'target_name': 'tsflannel',
      'sources': [
        '<!@(find core addon -name "*.cc" | sort)',
      ],
      'include_dirs': ['.'],
      'defines': [
        # Node-API 8 = Node 15.12 and later; everything used is in it, so one binary serves all supported releases.
        'NAPI_VERSION=8',
        'NODE_ADDON_API_DISABLE_CPP_EXCEPTIONS',
        'NODE_ADDON_API_DISABLE_DEPRECATED',
      ],
      # node-gyp's own flags come first; the last one given wins.
      'cflags!': ['-O2', '-g'],
      'cflags_cc!': ['-std=gnu++17', '-std=gnu++20'],
      'cflags_cc': [
        '-std=c++20',
        '-O3',
        '-fno-exceptions',
        '-fno-rtti',
        '-fvisibility=hidden',
        '-Wall',
        '-Wextra',
        '-Wconversion',
        '-Wshadow',
        '-Wold-style-cast',
        '-Werror',
        '-isystem', '<!(node -p "path.dirname(require.resolve(\'node-addon-api\'))")',
      ],
      'ldflags': ['-pthread'],
    },
  ],
}
