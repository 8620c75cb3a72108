<resource schema="exoplanet" resdir="exoplanet">
  <meta name="title">Extrasolar Planets Encyclopaedia, EPN-TAP layout (test)</meta>
  <meta name="creationDate">2026-11-24T00:00:00Z</meta>
  <meta name="description">The columns of exoplanet.epn_core that the connector asks for, for tests on this machine</meta>
  <meta name="creator">astrobio</meta>
  <meta name="subject">exoplanets</meta>
  <table id="epn_core" onDisk="True" adql="True">
    <column name="target_name" type="text" ucd="meta.id;src" description="planet"/>
    <column name="star_name" type="text" ucd="meta.id" description="host"/>
    <column name="mass" type="double precision" unit="Mjup" description="mass"/>
    <column name="radius" type="double precision" unit="Rjup" description="radius"/>
    <column name="period" type="double precision" unit="d" description="period"/>
    <column name="semi_major_axis" type="double precision" unit="AU" description="semi-major axis"/>
    <column name="star_teff" type="double precision" unit="K" description="host temperature"/>
    <column name="star_mass" type="double precision" unit="Msun" description="host mass"/>
    <column name="star_radius" type="double precision" unit="Rsun" description="host radius"/>
    <column name="star_distance" type="double precision" unit="pc" description="distance"/>
  </table>
  <data id="import">
    <sources>planets.csv</sources>
    <csvGrammar>
      <rowfilter>
        <code>
          yield {name: (value if value not in ("", None) else None) for name, value in row.items()}
        </code>
      </rowfilter>
    </csvGrammar>
    <make table="epn_core"><rowmaker idmaps="*"/></make>
  </data>
</resource>
